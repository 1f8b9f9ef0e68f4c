"""Connectors run here, supervised, and hand over what they receive."""
