"""Checks a client for `syncs check`: its settings, pages and records, and what its answers show besides."""
