"""One call: concurrency limit, attempt, retry, circuit breaker."""
