"""Report of one command: counts, failures, and the files that keep them."""
