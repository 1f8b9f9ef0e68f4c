"""The way out to the venues: through a proxy or not, and whom to trust."""
