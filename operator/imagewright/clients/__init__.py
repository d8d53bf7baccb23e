"""Protocols spoken natively. They know nothing of builds and could be libraries of their own."""
