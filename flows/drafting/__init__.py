"""Drafts the declaration of an API from its answers, for `syncs new`. Only `conversation` sends requests."""
