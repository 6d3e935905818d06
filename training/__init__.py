"""Training: corpora, token files, tasks. Imports `sayso.model`, never `sayso.inference`."""
