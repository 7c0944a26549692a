"""Decides when a client pauses, keeps its declared maintenance windows, and shares its request pace among processes."""
