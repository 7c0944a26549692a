"""Claims queued jobs: order, fairness, limits, leases, rescue and poison."""
