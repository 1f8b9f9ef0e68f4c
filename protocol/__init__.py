"""The wire contract: what a client of the daemon may say and what it is told.

Pure code only: the standard library and msgspec, no trio, no clock, no socket. Everything here can be read, tested and
reused without running the daemon.
"""
