"""Runs syncs and workers as Prefect flows, shows them there, and starts a Prefect server and worker for a project.

The only package that imports Prefect. Importing this package itself does not, since that takes over a second.
"""
