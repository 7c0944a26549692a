"""Runs one job or entity: connection, user code, and from its result or exception to an outcome."""
