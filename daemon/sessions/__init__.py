"""Serves clients over both protocols: one client each, and all clients together."""
