"""Contexts that the operator itself fetches."""
