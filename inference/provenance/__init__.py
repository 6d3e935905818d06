"""Signed C2PA metadata."""
