"""Gated speech: consent, receipts, ledger, marks. Imports `sayso.model`, never `sayso.training`."""
