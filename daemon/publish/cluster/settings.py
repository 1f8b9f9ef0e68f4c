"""`[cluster]`: where the engine is that carries the tape between machines, and what this node does there."""

from __future__ import annotations

import socket
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from connectors.base import Bytes

Role: TypeAlias = Literal["both", "ingest", "serve"]

Standby: TypeAlias = Literal["cold", "warm"]

_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z"

Secret: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^[!-~]{0,512}\Z",
        description="up to 512 printable ASCII characters without spaces",
        extra={"secret": True},
    ),
]


class Cluster(msgspec.Struct, frozen=True):
    """`[cluster]`. All of it is read at the start only.

    Attributes:
        url: the engine (`daemon.publish.cluster.address`); "" if this daemon is alone.
        name: of the cluster: several may share an engine. All keys begin with it.
        password: of the engine; it comes from a credential or the environment, and from a file only if others cannot
            read that.
        ca: the path of the certificates (PEM) that the engine's must be signed by; "" for those of the machine.
        role: whether this node takes data in, serves clients, or both.
        node: the name of this node, of which a cluster has one only; "" for the host's name.
        lease_s: so long the leader may be silent until another node takes over.
        standby: whether a node that could lead has connections to the venues before it does (`warm`).
        wait_replicas: so many replicas of the engine should have an entry before clients see it.
        stream_bytes: about so much of the tape is kept in the engine: what a node that starts begins with.
    """

    url: str = ""
    name: Annotated[str, Meta(pattern=_NAME, description="letters, digits, dots, - and _; up to 63")] = "main"
    password: Secret = ""
    ca: str = ""
    role: Role = "both"
    node: Annotated[str, Meta(pattern=_NAME[:-2] + r"|^\Z", description="letters, digits, dots, - and _; up to 63")] = (
        ""
    )
    lease_s: Annotated[float, Meta(ge=1, le=300)] = 5.0
    standby: Standby = "cold"
    wait_replicas: Annotated[int, Meta(ge=0, le=16)] = 0
    stream_bytes: Bytes = 67_108_864

    def __repr__(self) -> str:
        shown = {name: getattr(self, name) for name in self.__struct_fields__}
        shown["password"] = "***" if self.password else ""
        return f"Cluster({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @property
    def node_name(self) -> str:
        """The name of this node."""
        return self.node or socket.gethostname()

    @property
    def ingests(self) -> bool:
        """Whether this node may lead."""
        return self.role != "serve"

    @property
    def serves(self) -> bool:
        """Whether clients may come to this node."""
        return self.role != "ingest"


class Keys:
    """The keys of one cluster in the engine. The braces keep them in one slot of a Redis Cluster.

    Attributes:
        tape: the stream of what is on the tape.
        state: what a node that starts needs beside it, as of a position.
        leader: the lease.
        up: the stream of what nodes tell the leader.
        nodes: the hash of what each node says of itself.
    """

    def __init__(self, name: str) -> None:
        self.tape, self.state, self.leader, self.up, self.nodes = (
            f"tickerd:{{{name}}}:{what}" for what in ("tape", "state", "leader", "up", "nodes")
        )
