"""What the simulated venues can do wrong, and on whose order."""
