"""The soak's daemon says what it thinks of its clients, whoever asks."""

import socket
import threading
import time
from pathlib import Path

from tests.soak.inside import Opinions


def ask(path: Path) -> socket.socket:
    asking = socket.socket(socket.AF_UNIX)
    asking.settimeout(5.0)
    asking.connect(str(path))
    asking.sendall(b"5000")
    return asking


def test_whoever_asks_and_leaves_keeps_nobody_else_from_an_answer(tmp_path: Path) -> None:
    """On a machine that is very busy the judge leaves before the answer comes."""
    path = tmp_path / "inside"
    threading.Thread(target=Opinions().serve, args=(str(path),), daemon=True).start()
    until_s = time.monotonic() + 5
    while not path.exists() and time.monotonic() < until_s:
        time.sleep(0.01)
    for _ in range(100):
        ask(path).close()
    with ask(path) as asking:
        assert asking.recv(4096) == b"nobody was ever let in"
