"""Rules and helpers that several packages need: clocks, HTTP headers, checks of settings, redaction, httpx2."""
