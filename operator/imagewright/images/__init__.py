"""Where built images lie and get their names."""
