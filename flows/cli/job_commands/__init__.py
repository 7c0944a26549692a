"""The commands that name jobs, job types or queues: `work`, `enqueue`, `process`, `queues`, `jobs`, `retry` and so on."""
