"""Stores notices and the outbox of messages."""
