"""Voices, keys and the ledger on disk."""
