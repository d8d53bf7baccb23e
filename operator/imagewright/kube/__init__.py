"""The cluster, as far as we ask of it."""
