"""Benchmarks of `push_statuses` against the clients that a user would choose instead.

Run ``python -m benchmarks`` from the repository's root; docs/benchmarks.md explains the output.
"""
