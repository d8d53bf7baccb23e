"""What the operator does, shown to a person on real servers."""
