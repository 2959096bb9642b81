"""APIServices: other API servers behind this one, and the local groups in the same list."""
