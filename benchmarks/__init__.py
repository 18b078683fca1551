"""Measures `push_statuses` against the clients that a user would pick instead.

``python -m benchmarks`` from the repository's root; docs/benchmarks.md says how to read what it prints.
"""
