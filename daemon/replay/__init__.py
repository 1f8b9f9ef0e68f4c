"""A recording served as if it were live."""
