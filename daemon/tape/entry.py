"""One message on the tape: its place, its topic, and its frame in each format, built once for all clients.

Four kinds of entry share one sequence, so that every client sees them in the same order:

* data, of a topic (channel, instrument);
* a channel's status, of the topic (channel, STATUS);
* a keyframe, of a topic beside that of the changes which it sums up (`keyframe_topic`);
* a notice, of the topic NOTICE to everybody (`POST /ws/test`), or of the topic CANARY to nobody but
  `daemon.sessions.canary`.

Sync and pure.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from protocol.codes import ErrorCode
from protocol.frames import binary_frame, sse_event, text_frame
from protocol.messages import Error, Format, MessageError, encode_as, to_msgpack
from protocol.session import ALL, Selection

Topic: TypeAlias = tuple[str, str]
"""Channel and instrument; the instrument is "" if the channel is about a whole market."""

STATUS: Final = "!status"
"""In place of an instrument: the channel's status."""

_KEYFRAME: Final = "!keyframe "
"""In front of an instrument: the keyframes of that topic (`daemon.tape.delta`)."""

NOTICE: Final[Topic] = ("!", "!notice")
"""The topic of messages to every client, subscribed or not."""

CANARY: Final[Topic] = ("!", "!canary")
"""The topic of messages that test whether the hub is alive (`daemon.sessions.canary`); no client can take it."""


class Entry(msgspec.Struct, gc=False, eq=False):
    """One message on the tape, with its frame in each format, built once for all clients.

    The garbage collector does not look at entries: they are in no circle, and a look at a full tape's entries would
    hold up everybody for a tenth of a second, again and again.

    Attributes:
        seq: its position.
        ordinal: its number among the messages of its topic, from 1. The difference of two is an exact count, also of
            messages that are gone.
        topic: its topic.
        epoch: the tape's.
        text: its JSON as a websocket's text frame.
        data: whether this is a data message: what snapshots, resumes and `missed` counts are about.
    """

    seq: int
    ordinal: int
    topic: Topic
    epoch: str
    text: bytes
    data: bool
    _others: dict[Format, bytes] | None = None

    @classmethod
    def of(cls, seq: int, ordinal: int, topic: Topic, payload: bytes, epoch: str) -> Entry:
        """The entry for a message, encoded as JSON."""
        return cls(seq, ordinal, topic, epoch, text_frame(payload), is_data(topic))

    @property
    def payload(self) -> bytes:
        """The message as JSON: the text frame without its header (RFC 6455 section 5.2: 2, 4 or 10 bytes)."""
        length = self.text[1]
        return self.text[2 if length < 126 else 4 if length == 126 else 10 :]

    def frame(self, format: Format) -> bytes:
        """The frame in that format. The JSON one is ready; the others are built on first use."""
        if format is Format.JSON:
            return self.text
        if self._others is None:
            self._others = {}
        frame = self._others.get(format)
        if frame is None:
            if format is Format.MSGPACK:
                frame = binary_frame(self._packed())
            else:
                # Only data has a position: messages at intervals come late, and a later status must not hide them.
                frame = sse_event(self.payload, f"{self.epoch}-{self.seq}" if self.data else None)
            self._others[format] = frame
        return frame

    def _packed(self) -> bytes:
        """The message as MessagePack; if its JSON has no such form, an `error` instead of it, rather than silence."""
        try:
            return to_msgpack(self.payload)
        except MessageError as why:
            reason = f"message {self.seq} of {self.topic[0]} cannot be written as MessagePack: {why}"
            _, _, rest = self.payload.partition(b'"timestamp":"')
            timestamp = rest.partition(b'"')[0].decode()
            return encode_as(Error(timestamp=timestamp, code=ErrorCode.INTERNAL, message=reason), Format.MSGPACK)


def is_data(topic: Topic) -> bool:
    """Whether the topic's messages are data, and neither a status nor a notice, nor keyframes of other data."""
    return not topic[1].startswith("!")


def selects(selection: Selection, topic: Topic) -> bool:
    """Whether the selection includes the topic. `ALL` of a channel means its data; its status is selected by name."""
    return topic in selection or ((topic[0], ALL) in selection and not topic[1].startswith("!"))


def keyframe_topic(topic: Topic) -> Topic:
    """The topic of the keyframes of these data. No client takes it; who needs a keyframe is sent the newest."""
    return topic[0], _KEYFRAME + topic[1]


def subject(topic: Topic) -> Topic:
    """What a message of this topic is about: of keyframes the topic that they sum up."""
    return (topic[0], topic[1].removeprefix(_KEYFRAME)) if topic[1].startswith("!") else topic
