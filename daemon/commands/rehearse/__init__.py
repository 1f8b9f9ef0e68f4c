"""`tickerd rehearse`: every fault of the simulated venues, played to a daemon."""
