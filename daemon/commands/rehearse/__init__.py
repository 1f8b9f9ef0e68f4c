"""`tickerd rehearse`: plays every fault of the simulated venues to a daemon."""
