"""What the engine that carries the tape is asked: the lease, the stream, the state, and what nodes tell each other."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Final, cast

import coredis
import msgspec
from coredis.exceptions import ReplicationError

from connectors.metric import Samples
from daemon.publish.cluster import scripts
from daemon.publish.cluster.address import Address
from daemon.publish.cluster.entry import Carried, EntryId, read
from daemon.publish.cluster.link import Client, Link
from daemon.publish.cluster.settings import Keys
from daemon.publish.cluster.trouble import CAUSES

BLOCK_S: Final = 0.5
"""So long the engine waits for a new entry before it answers that there is none."""

_WAIT_MS: Final = 200
"""So long the engine waits for its replicas."""

_UP_KEPT: Final = 10_000
"""So many messages to the leader are kept, about."""

_log: Final = logging.getLogger(__name__)


class FencedError(Exception):
    """The stream does not end with the entry that was written last.

    Attributes:
        last: with which one it ends; None if it is empty.
    """

    def __init__(self, last: EntryId | None) -> None:
        super().__init__(f"the stream ends with {last or 'nothing'}")
        self.last = last


class NotLeaderError(Exception):
    """Another node holds the lease, or nobody.

    Attributes:
        holder: the token of whoever does; "" if nobody.
    """

    def __init__(self, holder: str) -> None:
        super().__init__(f"the lease is held by {holder or 'nobody'}")
        self.holder = holder


class Stored(msgspec.Struct, frozen=True):
    """The state that is stored in the engine: what a node that starts needs beside the entries.

    Attributes:
        epoch: of the tape.
        at: it is the state after this entry; "0-0" if there was none yet.
        floor: the tape's head before the oldest entry that is kept.
        data: the `Beginning`, encoded.
    """

    epoch: str
    at: EntryId
    floor: int
    data: bytes


class Overview(msgspec.Struct, frozen=True):
    """What a node learns when it reports.

    Attributes:
        now_ms: the engine's clock, ms since 1970.
        leader: the token of the lease; "" if nobody holds it.
        epoch: of the tape; "" if there is none.
        last: the id of the newest entry; None if there is none.
        first: of the oldest.
        entries: how many there are.
        nodes: what each node said of itself, and when by the engine's clock.
        was: what had been said of the node that asked; None if nothing.
    """

    now_ms: int
    leader: str
    epoch: str
    last: EntryId | None
    first: EntryId | None
    entries: int
    nodes: dict[str, tuple[int, bytes]]
    was: tuple[int, bytes] | None = None


class Engine(Link):
    """The engine, for one cluster's keys.

    Attributes:
        version: what it says it is; "" before the first answer.
        short: how often an entry did not reach as many replicas as it should have.
    """

    def __init__(self, address: Address, keys: Keys, *, password: str = "", ca: str = "", replicas: int = 0) -> None:
        """`replicas`: so many should have an entry before `append` returns; see `Link` for the rest."""
        super().__init__(address, password=password, ca=ca)
        self.version = ""
        self.short = 0
        self._keys = keys
        self._replicas = replicas
        self._was_short = False

    async def _run(self, script: str, keys: Sequence[str], arguments: Sequence[str | bytes | int]) -> list[Any]:
        async def question(client: Client) -> object:
            return await client.register_script(script)(keys=list(keys), args=list(arguments))

        return cast("list[Any]", await self.ask(question))

    # ---- whoever leads -----------------------------------------------------------------------------------------------

    async def hold(self, token: str, lease_s: float) -> str:
        """Take or keep the lease, if no other node holds it. Returns who holds it then. Raises: EngineError."""
        [holder] = await self._run(scripts.HOLD, [self._keys.leader], [token, int(lease_s * 1000)])
        return cast("bytes", holder).decode()

    async def release(self, token: str) -> None:
        """Give the lease back, if it is ours. Raises: EngineError."""
        await self._run(scripts.RELEASE, [self._keys.leader], [token])

    async def append(self, token: str, last: EntryId | None, id_: EntryId, fields: Sequence[str | bytes]) -> None:
        """Write one entry directly after `last`; None if there is to be none.

        Raises:
            EngineError: the engine did not answer; the entry may have been written.
            FencedError: the stream ends with something else; nothing is written.
            NotLeaderError: the lease is not ours; nothing is written.
        """
        keys, arguments = [self._keys.leader, self._keys.tape], [token, "" if last is None else str(last), str(id_)]

        async def question(client: Client) -> object:
            script = client.register_script(scripts.APPEND)
            waiting = client.ensure_replication(self._replicas, _WAIT_MS) if self._replicas else nullcontext()
            try:
                with waiting:
                    answer: object = await script(keys=keys, args=[*arguments, *fields])
            except ReplicationError:  # it is written, and the engine alone has it
                self.short += 1
                self._is_short(True)
                return [b"ok"]
            self._is_short(False)
            return answer

        _judge(cast("list[bytes]", await self.ask(question)))

    def _is_short(self, short: bool) -> None:
        if short != self._was_short:
            self._was_short = short
            if short:
                _log.warning("too few replicas of the engine have an entry in time: wait_replicas = %d", self._replicas)
            else:
                _log.info("as many replicas of the engine as wait_replicas names have each entry again")

    async def clear(self, token: str) -> None:
        """Remove the tape, to write it anew. Raises: EngineError, NotLeaderError."""
        _judge(await self._run(scripts.CLEAR, [self._keys.leader, self._keys.tape, self._keys.state], [token]))

    async def settle(self, token: str, stored: Stored, first: EntryId | None) -> None:
        """Store the state after the newest entry, and let go of the entries before `first`.

        Raises:
            EngineError: the engine did not answer; it may have been done.
            FencedError: the stream ends with something else; nothing is done.
            NotLeaderError: the lease is not ours; nothing is done.
        """
        oldest = "" if first is None else str(first)
        arguments: list[str | bytes | int] = [token, stored.epoch, str(stored.at), stored.floor, oldest, stored.data]
        _judge(await self._run(scripts.SETTLE, [self._keys.leader, self._keys.tape, self._keys.state], arguments))

    async def told(self, after: str) -> list[tuple[str, bytes]]:
        """What nodes told the leader after that id; waits `BLOCK_S` at most. Raises: EngineError."""

        async def question(client: Client) -> list[tuple[str, bytes]]:
            answer = await client.xread(streams={self._keys.up: after}, count=1000, block=int(BLOCK_S * 1000))
            entries = (answer or {}).get(self._keys.up.encode(), ())
            return [(_text(each.identifier), _plain(each.field_values)[b"data"]) for each in entries]

        return await self.ask(question)

    async def heeded(self, upto: str) -> None:
        """What nodes told up to that id needs no more telling. Raises: EngineError."""
        before, _, count = upto.partition("-")
        await self._run(scripts.HEED, [self._keys.up], [f"{before}-{int(count) + 1}"])

    # ---- whoever follows ---------------------------------------------------------------------------------------------

    async def stored(self) -> Stored | None:
        """The state that is stored; None if there is none. Raises: EngineError, StrangeEntryError."""

        async def question(client: Client) -> Mapping[bytes, bytes]:
            return await client.hgetall(self._keys.state)

        found = await self.ask(question)
        if not found:
            return None
        return Stored(found[b"epoch"].decode(), EntryId.read(found[b"at"]), int(found[b"floor"]), found[b"data"])

    async def page(self, after: EntryId | None, count: int) -> tuple[int, list[Carried]]:
        """The oldest entries after that id, and the floor at the same moment; -1 if no state is stored.

        Raises:
            EngineError, StrangeEntryError
        """
        begin = "-" if after is None else f"({after}"
        floor, rows = await self._run(scripts.PAGE, [self._keys.tape, self._keys.state], [begin, count])
        entries = [read(id_, dict(zip(each[::2], each[1::2], strict=True))) for id_, each in rows]
        return int(floor) if floor else -1, entries

    async def tail(self, after: EntryId, count: int) -> list[Carried]:
        """The next entries after that id; waits `BLOCK_S` at most. Raises: EngineError, StrangeEntryError."""

        async def question(client: Client) -> list[Carried]:
            answer = await client.xread(streams={self._keys.tape: str(after)}, count=count, block=int(BLOCK_S * 1000))
            entries = (answer or {}).get(self._keys.tape.encode(), ())
            return [read(_text(each.identifier).encode(), _plain(each.field_values)) for each in entries]

        return await self.ask(question)

    async def tell(self, data: bytes) -> None:
        """Tell whoever leads. Raises: EngineError."""

        async def question(client: Client) -> object:
            return await client.xadd(
                self._keys.up,
                {"data": data},
                trim_strategy=coredis.PureToken.MAXLEN,
                threshold=_UP_KEPT,
                trim_operator=coredis.PureToken.APPROXIMATELY,
            )

        await self.ask(question)

    async def report(self, node: str, said: bytes) -> Overview:
        """Say how this node does, and learn how the others do; with node "" only learn. Raises: EngineError."""
        keys = self._keys
        answer = await self._run(scripts.REPORT, [keys.leader, keys.tape, keys.nodes, keys.state], [node, said])
        now, leader, epoch, last, first, entries, flat, was = answer
        nodes = {name.decode(): _dated(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}
        newest, oldest = (EntryId.read(each) if each else None for each in (last, first))
        before = _dated(was) if was else None
        return Overview(int(now), leader.decode(), epoch.decode(), newest, oldest, entries, nodes, before)

    async def leave(self, node: str) -> None:
        """This node is gone, and is to be named no more. Raises: EngineError."""
        await self._run(scripts.LEAVE, [self._keys.nodes], [node])

    async def identify(self) -> str:
        """What the engine says it is, such as "Redis 7.0.15". Raises: EngineError."""

        async def question(client: Client) -> Mapping[str, object]:
            return await client.info("server")

        told = await self.ask(question)
        if "valkey_version" in told:
            self.version = f"Valkey {told['valkey_version']}"
        else:
            self.version = f"Redis {told.get('redis_version', '')}".strip()
        return self.version

    def measure(self, samples: Samples) -> None:
        """Add how the engine does."""
        samples.value("tickerd_cluster_engine_up", "1 if the engine answers.", not self.trouble)
        samples.count("tickerd_cluster_questions", "What the engine was asked.", self.asked)
        samples.count("tickerd_cluster_connects", "How often connections to the engine were opened.", self.opened)
        failures = {cause: self.failures[cause] for cause in CAUSES}
        samples.counts("tickerd_cluster_failures", "Questions that were not answered.", "cause", failures)
        samples.count("tickerd_cluster_short", "Entries that too few replicas have.", self.short)


def _dated(value: bytes) -> tuple[int, bytes]:
    at_ms, _, said = value.partition(b" ")
    return int(at_ms), said


def _text(id_: str | bytes) -> str:
    return id_ if isinstance(id_, str) else id_.decode()


def _plain(values: Mapping[Any, Any]) -> Mapping[bytes, bytes]:
    """Fields of an entry; nothing is decoded, whatever the library's types allow for."""
    return values


def _judge(answer: list[bytes]) -> None:
    """Raises: FencedError, NotLeaderError."""
    verdict, *more = answer
    if verdict == b"fence":
        raise FencedError(EntryId.read(more[0]) if more[0] else None)
    if verdict == b"leader":
        raise NotLeaderError(more[0].decode())
