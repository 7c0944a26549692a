"""HTTP: the client, its connection pool, credentials by origin, rate limits, conditional requests and error statuses."""
