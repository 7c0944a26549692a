"""The worker: claims jobs, runs them in threads, renews leases and finishes in batches."""
