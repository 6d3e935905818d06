"""Gated speech: receipts, ledger, marks, `Synthesizer`. Imports `sayso.model`, never `sayso.training`."""
