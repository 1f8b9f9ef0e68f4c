"""The floor that the daemon is measured against: a bare loop of `os.write`, one call per message and socket.

It prints its port, takes so many connections, and then sends each message to each of them, as fast as it goes or at a
rate. A message is the frame it was given (one that the daemon sent), with a new stamp. The sockets are as the daemon's:
TCP_NODELAY, the same send buffer. They block, so that nothing is lost where a reader is slower; time spent waiting is
not CPU time. It ends when a client goes.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import sys
import time
from pathlib import Path
from typing import Final

from protocol.frames import text_frame

SEND_BUFFER_BYTES: Final = 128 * 1024
ACCEPT_WITHIN_S: Final = 60.0


def serve(listener: socket.socket, clients: int, rate: float, payload: bytes) -> None:
    """Accept the clients and write to them until one is gone."""
    listener.settimeout(ACCEPT_WITHIN_S)
    print(listener.getsockname()[1], flush=True)
    connections = [listener.accept()[0] for _ in range(clients)]
    for connection in connections:
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    descriptors = [connection.fileno() for connection in connections]
    before, after = re.split(rb"(?<=\"mono\":)\d+", payload, maxsplit=1)
    write = os.write
    began_s = time.monotonic()
    sent = 0
    while True:
        if rate:
            sent += 1
            pause_s = began_s + sent / rate - time.monotonic()
            if pause_s > 0:
                time.sleep(pause_s)
        frame = text_frame(b"%s%d%s" % (before, time.monotonic_ns(), after))
        for descriptor in descriptors:
            write(descriptor, frame)


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="a bare loop of os.write over sockets")
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True, help="messages a second; 0 is as fast as it goes")
    parser.add_argument("--payload", type=Path, required=True, help="a message of the daemon's, with its stamp")
    options = parser.parse_args()
    payload = options.payload.read_bytes()
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        try:
            serve(listener, options.clients, options.rate, payload)
        except (BrokenPipeError, ConnectionResetError):
            sys.exit(0)
        except KeyboardInterrupt:
            sys.exit(130)


if __name__ == "__main__":
    main()
