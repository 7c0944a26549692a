"""What the project must reach, measured against floors of the same run. `python -m benchmarks` runs all of it."""
