"""One run of ``printos push``: its modes, counts, files and report."""
