"""The tape, in memory and on disk, and the places on it."""
