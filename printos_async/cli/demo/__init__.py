"""The demonstrations of ``printos demo``, and their report."""
