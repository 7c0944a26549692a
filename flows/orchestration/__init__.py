"""The Prefect half: flows, tracker, artifacts, deployments, automations, and the server and worker of `syncs up`.

Importing this package imports no Prefect, which takes over a second; `address` and `processes` stay free of it altogether.
"""
