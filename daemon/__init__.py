"""The daemon: from normalised events to the clients' sockets.

`daemon.app` is the composition root: the one place that knows the concrete classes and the order of start and stop.
"""
