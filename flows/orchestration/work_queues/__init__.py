"""Pauses and resumes the Prefect work queue of a client with the client, and the client with its work queue."""
