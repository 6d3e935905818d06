"""Training: corpora, token files, Lightning tasks. Imports `sayso.model`, never `sayso.inference`."""
