"""A venue that is asked by HTTP: what to ask, when, and the loop that does it."""
