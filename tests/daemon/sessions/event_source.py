"""An event stream's other end: what a browser's EventSource makes of its bytes, by WHATWG HTML section 9.2.6."""

import json
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]


@dataclass
class EventSource:
    """Takes bytes, cut anywhere.

    Attributes:
        messages: each event's data, decoded.
        ids: the last event id at each of them.
        last_id: what it would send as `Last-Event-ID` if the connection broke now.
        retry_ms: how long it would wait before.
        comments: lines that mean nothing.
    """

    last_id: str = ""
    messages: list[Message] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    retry_ms: int | None = None
    comments: list[str] = field(default_factory=list)
    _unread: bytes = b""
    _id: str = ""
    _data: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._id = self.last_id

    def feed(self, data: bytes) -> None:
        """More bytes. The daemon ends its lines with a line feed and nothing else."""
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            self._line(line.decode())

    def _line(self, line: str) -> None:
        if not line:
            self.last_id = self._id
            if self._data:
                self.messages.append(json.loads("\n".join(self._data)))
                self.ids.append(self.last_id)
            self._data = []
            return
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not name:
            self.comments.append(value)
        elif name == "data":
            self._data.append(value)
        elif name == "id":
            self._id = value
        elif name == "retry":
            self.retry_ms = int(value)
        else:
            raise AssertionError(f"an unknown field: {line!r}")

    @property
    def torn(self) -> bool:
        """Whether an event has begun and not ended."""
        return bool(self._unread or self._data)

    def seqs(self) -> list[int]:
        """The positions of the data messages, in the order they came."""
        return [message["seq"] for message in self.messages if "prev_seq" in message]
