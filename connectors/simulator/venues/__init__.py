"""The simulated venues, and the market that they show."""
