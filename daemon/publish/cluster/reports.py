"""What nodes tell each other beside the tape: once a second what each of them does, and what goes up to the leader.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from daemon.publish.cluster.settings import Role
from daemon.publish.replica import Noted
from protocol.answers import NodeReport, NodeState, WorkerReport

GONE_S: Final = 5.0
"""A node that has said nothing for so long is gone."""

NAMED_TWICE_S: Final = 3.0
"""Two that use one name within this time are two."""


class Said(msgspec.Struct, omit_defaults=True):
    """What a node says of itself.

    Attributes:
        token: differs for each process that runs as this node.
        version: of tickerd.
        clients: how many it has, with those of its workers.
    """

    token: str
    role: Role
    state: NodeState
    version: str
    epoch: str
    seq: int
    clients: int
    since: str
    reason: str = ""
    workers: tuple[WorkerReport, ...] = ()


class Up(msgspec.Struct, omit_defaults=True):
    """What a node tells the leader.

    Attributes:
        node: which one.
        notes: incidents among its clients, for the ledger.
        test: a message that every client is to be sent; "" if there is none.
    """

    node: str
    notes: list[Noted] = []
    test: str = ""


_said: Final = msgspec.json.Decoder(Said)
_up: Final = msgspec.json.Decoder(Up)
encode: Final = msgspec.json.Encoder().encode


def read_up(data: bytes) -> Up | None:
    """What a node told; None if another version of tickerd wrote it, which is no reason to stop."""
    try:
        return _up.decode(data)
    except (msgspec.DecodeError, UnicodeError):
        return None


def read_all(nodes: Mapping[str, tuple[int, bytes]], now_ms: int) -> Iterator[tuple[str, float, Said]]:
    """Each node by name, how old what it said is, and what it said. What cannot be read is passed over."""
    for name in sorted(nodes):
        at_ms, data = nodes[name]
        try:
            yield name, max(0, now_ms - at_ms) / 1000, _said.decode(data)
        except (msgspec.DecodeError, UnicodeError):
            continue


def reported(name: str, age_s: float, said: Said, head: int, leader: str) -> NodeReport:
    """A node as `GET /cluster` tells it; `head` is where the tape is, `leader` the name of the node that leads."""
    gone = age_s > GONE_S
    return NodeReport(
        node=name,
        role=said.role,
        leads=name == leader and not gone,
        state="gone" if gone else said.state,
        reason=f"nothing was heard of it for {age_s:.0f} s" if gone else said.reason,
        seq=said.seq,
        lag=max(0, head - said.seq),
        clients=0 if gone else said.clients,
        since=said.since,
        age_s=round(age_s, 3),
        workers=said.workers,
    )


def node_of(token: str) -> str:
    """The name of the node whose lease has this token; "" if it is nobody's."""
    return token.partition(" ")[0]
