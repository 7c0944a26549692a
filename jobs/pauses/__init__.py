"""Stores pauses, paces, error counts and probes of clients."""
