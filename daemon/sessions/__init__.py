"""One client, whatever it speaks, and all clients together."""
