"""Several processes that serve clients (`[server] workers`): the parent makes the tape, the workers follow it."""
