"""Fit what ships with the package. `python -m tools.NAME`."""
