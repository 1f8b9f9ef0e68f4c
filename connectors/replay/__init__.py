"""Recordings played again: the same venue objects are given the same bytes, at the recorded times."""
