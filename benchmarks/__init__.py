"""Measures the speed of the project and compares it with baselines of the same run; `python -m benchmarks` runs everything."""
