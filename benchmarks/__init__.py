"""Measurements: each prints ratios within one run. `python -m benchmarks.NAME`."""
