"""What a process of the daemon is made of: the half that takes data in, the half that serves clients."""
