"""The shell around the pure core: look, decide, act, report."""
