"""Queues jobs: payloads, duplicate policies, and jobs whose declaration moved."""
