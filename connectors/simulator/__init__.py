"""The venues, simulated or replayed, on one loopback port."""
