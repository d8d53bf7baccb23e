"""The watch: kopf, its settings, and the session that it asks with."""
