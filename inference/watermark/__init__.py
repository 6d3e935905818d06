"""Inaudible marks in the sound."""
