"""Sayso: VALL-E 2 that speaks only on the speaker's say-so."""

__version__ = "0.1.0"
