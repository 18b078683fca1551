"""Execution of one call: concurrency limit, attempt, retry, circuit breaker."""
