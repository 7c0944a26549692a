"""Drafts a declaration from a description of an API: OpenAPI 3 and Swagger 2."""
