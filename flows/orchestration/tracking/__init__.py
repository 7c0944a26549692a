"""Shows the progress of a run in Prefect: task runs, artifacts, states and events."""
