"""Renews single entities of a sync, without a listing."""
