"""Turns events into entries on the tape, and hands these to the tape's followers."""
