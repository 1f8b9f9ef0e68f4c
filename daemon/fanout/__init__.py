"""Carries messages from the tape to the clients' sockets."""
