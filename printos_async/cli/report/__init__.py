"""What became of the statuses of one command."""
