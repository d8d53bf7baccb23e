"""What prune empties."""
