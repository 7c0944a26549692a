"""Decides which messages about trouble people get, writes them and sends them."""
