"""A client that keeps every message of a daemon, each topic by itself, without what differs from run to run."""

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

Topic = tuple[str, str]
Message = dict[str, Any]

OF_THE_RUN = ("timestamp", "seq", "prev_seq", "through", "epoch")
"""What differs although the same was said."""


class Listener:
    """Subscribed to everything until the daemon goes away, or `stop` says so.

    Attributes:
        topics: the data messages by topic, in order; numbers with the digits that they came with.
        statuses: what was told of channels.
        welcome: the first message.
    """

    def __init__(self, port: int, stop: Callable[["Listener"], bool] = lambda _: False, *, whole: bool = False) -> None:
        """`whole`: what was published before it came is asked for, too."""
        self._whole = whole
        self.topics: dict[Topic, list[Message]] = {}
        self.statuses: list[Message] = []
        self.others: list[Message] = []
        self.welcome: Message = {}
        self._stop = stop
        self._url = f"ws://127.0.0.1:{port}/ws"
        self._welcomed = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        assert self._welcomed.wait(10)

    def _listen(self) -> None:
        with suppress(ConnectionClosed), connect(self._url, max_size=None) as socket:
            self.welcome = json.loads(socket.recv())
            names = self.welcome["channels"]
            since = {"since": {"epoch": self.welcome["epoch"], "seq": 0}} if self._whole else {}
            for at in range(0, len(names), 50):
                socket.send(json.dumps({"type": "subscribe", "channels": names[at : at + 50], **since}))
            self._welcomed.set()
            for text in socket:
                message = json.loads(text, parse_float=str)
                for field in OF_THE_RUN:
                    message.pop(field, None)
                if "connector_id" in message:
                    self.topics.setdefault((message["connector_id"], message.get("instrument", "")), []).append(message)
                elif message["type"] == "status":
                    self.statuses.append(message)
                else:
                    self.others.append(message)
                if self._stop(self):
                    return

    def wait(self, within_s: float) -> None:
        """Until it has heard all. Fails where that takes longer."""
        self._thread.join(within_s)
        assert not self._thread.is_alive(), f"still listening after {within_s} s: {self.statuses[-3:]}"

    def ended(self) -> set[str]:
        """The channels of which it was told that the recording has ended."""
        return {each["channel"] for each in self.statuses if each.get("reason") == "the recording ended"}
