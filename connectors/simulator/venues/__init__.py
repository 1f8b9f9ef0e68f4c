"""The simulated venues, one file each."""
