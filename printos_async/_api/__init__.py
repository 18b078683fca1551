"""Conversion of values to HTTP messages and back: requests, validation, responses, errors."""
