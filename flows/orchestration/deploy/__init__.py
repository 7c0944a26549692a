"""Applies work pool, deployments and automations to a Prefect server."""
