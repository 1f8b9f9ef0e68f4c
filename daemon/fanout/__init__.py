"""From the tape to the clients' sockets."""
