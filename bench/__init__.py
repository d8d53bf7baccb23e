"""The benchmark: builds through the operator against buildctl, in pairs, on the same daemon."""
