"""The engine that carries the tape: a link to Valkey or Redis that comes back by itself, and the few questions asked.

Every question is either answered in time, or raises an `EngineError` that says in words what is wrong. After one that
was not answered all connections are closed and opened anew, since whatever they still bring belongs to the past.
"""

from __future__ import annotations

import logging
import math
import random
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from typing import Any, Final, TypeAlias, TypeVar, cast

import coredis
import msgspec
import trio
from coredis.exceptions import ReplicationError

from connectors.metric import Samples
from daemon.publish.cluster import scripts
from daemon.publish.cluster.address import Address
from daemon.publish.cluster.entry import Carried, EntryId, StrangeEntryError, read
from daemon.publish.cluster.settings import Keys
from daemon.publish.cluster.trouble import CAUSES, Cause, EngineError, explained

T = TypeVar("T")

AWAY_S: Final = 2.0
"""An engine that has not answered for so long is away: clients are told."""

BLOCK_S: Final = 0.5
"""So long the engine waits for a new entry before it answers that there is none."""

_ANSWER_S: Final = 1.5
"""How long a question may take; longer than `BLOCK_S`."""

_CONNECT_S: Final = 1.5

_HELD_S: Final = 5.0
"""Connections that held for so long were no failed attempt."""

_LONGEST_WAIT_S: Final = 2.0
"""Until the next attempt to connect."""

_WAIT_MS: Final = 200
"""So long the engine waits for its replicas."""

_REFUSALS: Final = frozenset({"permission", "memory", "other"})
"""Here the engine answers, and the connection is well."""

_UP_KEPT: Final = 10_000
"""So many messages to the leader are kept, about."""

_Client: TypeAlias = "coredis.Redis[bytes] | coredis.RedisCluster[bytes]"

_log: Final = logging.getLogger(__name__)

# What it has to say of its connections is said here, once and in words.
logging.getLogger("coredis").setLevel(logging.CRITICAL)


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


class Engine:
    """The link to the engine, for one cluster's keys.

    Attributes:
        address: where it is.
        trouble: what is wrong with it now, in words; "" if it answers.
        heard_s: when it answered last, on the clock of `trio.current_time()`.
        opened_s: when the connections were opened, on the same clock.
        version: what it says it is; "" before the first answer.
        short: how often an entry did not reach as many replicas as it should have.
    """

    def __init__(self, address: Address, keys: Keys, *, password: str = "", ca: str = "", replicas: int = 0) -> None:
        self.address = address
        self.trouble = "has not answered yet"
        self.heard_s = self.opened_s = -math.inf
        self.version = ""
        self.short = 0
        self.asked = self.opened = 0
        self.failures: Counter[Cause] = Counter()
        self._keys = keys
        self._password = password
        self._ca = ca
        self._replicas = replicas
        self._client: _Client | None = None
        self._open = trio.Event()
        self._link = trio.CancelScope()
        self._told = ""
        self._error: EngineError | None = None
        self._failed_s = -math.inf

    # ---- the link ----------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep connections to the engine, until cancelled."""
        task_status.started()
        attempts = 0
        while True:
            began_s = trio.current_time()
            try:
                with trio.CancelScope() as self._link:
                    async with self._connected() as client:
                        self._client = client
                        self.opened += 1
                        self.opened_s = trio.current_time()
                        self._open.set()
                        await trio.sleep_forever()
            except trio.Cancelled:
                raise
            except BaseException as error:
                if not isinstance(error, Exception | BaseExceptionGroup) or _is_cancelled(error):
                    raise
                self._failed(explained(error))
            finally:
                self._client, self._open = None, trio.Event()
            attempts = 0 if trio.current_time() - began_s > _HELD_S else min(attempts + 1, 8)
            await trio.sleep(random.uniform(0.05, min(_LONGEST_WAIT_S, 0.1 * 2**attempts)))

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[_Client]:
        at = self.address
        common: dict[str, Any] = {
            "stream_timeout": _ANSWER_S,
            "connect_timeout": _CONNECT_S,
            "decode_responses": False,
        }
        if self._password or at.user:
            common |= {"username": at.user or "default", "password": self._password}
        context = _tls(self._ca) if at.tls else None
        places = [coredis.connection.TCPLocation(host, port) for host, port in at.hosts]
        async with AsyncExitStack() as stack:
            client: _Client
            if at.kind == "cluster":
                client = coredis.RedisCluster(startup_nodes=places, ssl_context=context, **common)
            elif at.kind == "sentinel":
                plain = {name: common[name] for name in ("stream_timeout", "connect_timeout")}
                sentinel = coredis.Sentinel(places, sentinel_kwargs=plain, ssl_context=context, **common)
                await stack.enter_async_context(sentinel)
                client = sentinel.primary_for(at.service, db=at.database)
            else:
                [(host, port)] = at.hosts
                client = coredis.Redis(host=host, port=port, db=at.database, ssl_context=context, **common)
            await stack.enter_async_context(client)
            yield client

    def anew(self) -> None:
        """Close all connections, and open them anew."""
        self._link.cancel(reason="the engine did not answer as it should")

    def _failed(self, error: EngineError) -> None:
        self.failures[error.cause] += 1
        self._failed_s = trio.current_time()
        self.trouble, self._error = str(error), error
        if self.trouble != self._told:
            self._told = self.trouble
            said = {"event": "engine", "cause": error.cause}
            _log.warning("the engine at %s %s", self.address.words, error, extra=said)

    async def _ask(self, question: Callable[[_Client], Awaitable[T]], within_s: float = _ANSWER_S) -> T:
        """Ask, and take the answer.

        Raises:
            EngineError: it was not answered. What was asked may have been done all the same.
        """
        client = self._client
        if client is None:
            with trio.move_on_after(within_s):
                await self._open.wait()
            client = self._client
            if client is None:
                raise self._error or EngineError("lost", "is not connected")
        link = self._link
        self.asked += 1
        try:
            with trio.fail_after(within_s):
                answer = await question(client)
        except StrangeEntryError:
            raise  # it answered
        except Exception as error:
            if link.cancel_called:  # another question was not answered, so this one cannot be: that is told already
                raise self._error or EngineError("lost", "is being connected to anew") from error
            if isinstance(error, trio.TooSlowError):
                failed = EngineError("silent", "does not answer in time")
            else:
                failed = explained(error)
            self._failed(failed)
            if failed.cause not in _REFUSALS:
                link.cancel(reason="the engine did not answer as it should")
            raise failed from error
        self.heard_s = trio.current_time()
        # What it refuses it may refuse of some questions only: that is over when it has refused nothing for a while.
        refuses = self._error is not None and self._error.cause in _REFUSALS
        if self.trouble and not (refuses and self.heard_s - self._failed_s < AWAY_S):
            self.trouble = self._told = ""
            self._error = None
            said = {"event": "engine", "cause": ""}
            _log.info("the engine at %s answers", self.address.words, extra=said)
        return answer

    async def _run(self, script: str, keys: Sequence[str], arguments: Sequence[str | bytes | int]) -> list[Any]:
        async def question(client: _Client) -> object:
            return await client.register_script(script)(keys=list(keys), args=list(arguments))

        return cast("list[Any]", await self._ask(question))

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

        async def question(client: _Client) -> object:
            script = client.register_script(scripts.APPEND)
            waiting = client.ensure_replication(self._replicas, _WAIT_MS) if self._replicas else nullcontext()
            try:
                with waiting:
                    return await script(keys=keys, args=[*arguments, *fields])
            except ReplicationError:  # it is written, and the engine alone has it
                self.short += 1
                return [b"ok"]

        _judge(cast("list[bytes]", await self._ask(question)))

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

        async def question(client: _Client) -> list[tuple[str, bytes]]:
            answer = await client.xread(streams={self._keys.up: after}, count=1000, block=int(BLOCK_S * 1000))
            entries = (answer or {}).get(self._keys.up.encode(), ())
            return [(_text(each.identifier), _plain(each.field_values)[b"data"]) for each in entries]

        return await self._ask(question)

    async def heeded(self, upto: str) -> None:
        """What nodes told up to that id needs no more telling. Raises: EngineError."""
        before, _, count = upto.partition("-")
        await self._run(scripts.HEED, [self._keys.up], [f"{before}-{int(count) + 1}"])

    # ---- whoever follows ---------------------------------------------------------------------------------------------

    async def stored(self) -> Stored | None:
        """The state that is stored; None if there is none. Raises: EngineError, StrangeEntryError."""

        async def question(client: _Client) -> Mapping[bytes, bytes]:
            return await client.hgetall(self._keys.state)

        found = await self._ask(question)
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

        async def question(client: _Client) -> list[Carried]:
            answer = await client.xread(streams={self._keys.tape: str(after)}, count=count, block=int(BLOCK_S * 1000))
            entries = (answer or {}).get(self._keys.tape.encode(), ())
            return [read(_text(each.identifier).encode(), _plain(each.field_values)) for each in entries]

        return await self._ask(question)

    async def tell(self, data: bytes) -> None:
        """Tell whoever leads. Raises: EngineError."""

        async def question(client: _Client) -> object:
            return await client.xadd(
                self._keys.up,
                {"data": data},
                trim_strategy=coredis.PureToken.MAXLEN,
                threshold=_UP_KEPT,
                trim_operator=coredis.PureToken.APPROXIMATELY,
            )

        await self._ask(question)

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

        async def question(client: _Client) -> Mapping[str, object]:
            return await client.info("server")

        told = await self._ask(question)
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


def _tls(ca: str) -> ssl.SSLContext:
    """Raises: OSError: the certificates cannot be read."""
    return ssl.create_default_context(cafile=ca or None)


def _is_cancelled(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(map(_is_cancelled, error.exceptions))
    return isinstance(error, trio.Cancelled)
