"""Who comes in: sockets, HTTP, limits, tokens."""
