"""Runs the connectors under supervision, and hands over what they receive."""
