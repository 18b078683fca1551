"""What ``printos demo`` runs, and its report."""
