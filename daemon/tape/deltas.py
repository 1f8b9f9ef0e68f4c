"""The topics of a tape whose messages are changes: which they are, and what each message makes of its topic's state.

`daemon.tape.delta` has the state of one topic. Where messages are made, `daemon.publish.keyframes` knows what each of
them is; where a tape is followed, it is read off the message (`placed`).

Sync and pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from daemon.tape.delta import Delta, restored
from daemon.tape.entry import Entry, Topic, is_data, keyframe_topic, subject
from daemon.tape.tape import Tape
from protocol.channels import WHOLE_MARKET, Catalogue
from protocol.kinds import KINDS, TopicState

_BEGINS: Final = tuple(
    b'{"type":"%s"' % str(kind.snapshot.__struct_config__.tag).encode()
    for kind in KINDS.values()
    if kind.snapshot is not None
)
"""How messages begin that say all. `protocol.messages.encode` writes the type first."""


def adopt(tape: Tape, catalogue: Catalogue) -> list[Topic]:
    """Follow a change of the catalogue: what is new has the state that stands on the tape. Returns what is gone."""
    known: set[Topic] = set()
    for channel in catalogue:
        if channel.kind.state is not TopicState.DELTA or channel.kind.snapshot is None:
            continue
        topics = [(channel.name, instrument) for instrument in channel.instruments or (WHOLE_MARKET,)]
        known.update(topics)
        new = [topic for topic in topics if topic not in tape.deltas]
        entries = tape.known(channel.name) if new else []
        for topic in new:
            begins = str(channel.kind.snapshot.__struct_config__.tag)
            tape.deltas[topic] = _restored(tape, topic, entries, begins)
    gone = [topic for topic in tape.deltas if topic not in known]
    for topic in gone:
        del tape.deltas[topic]
    return gone


def placed(tape: Tape, entry: Entry) -> None:
    """This message of another tape has been placed on the tape that follows it."""
    if not tape.deltas:
        return
    topic = subject(entry.topic)
    delta = tape.deltas.get(topic)
    if delta is None:
        return
    if not is_data(entry.topic):
        if entry.topic == keyframe_topic(topic):
            through = tape.newest(topic)
            delta.begin(entry, 0 if through is None else through.ordinal)
    elif entry.payload.startswith(_BEGINS):
        delta.begin(entry, entry.ordinal)
    elif delta.base is not None:
        delta.add(entry)


def _restored(tape: Tape, topic: Topic, entries: Sequence[Entry], begins: str) -> Delta:
    own = [entry for entry in entries if entry.topic == topic]
    newest = tape.newest(topic)
    if newest is not None and (not own or own[-1] is not newest):
        own.append(newest)
    return restored(tape.newest(keyframe_topic(topic)), own, begins)
