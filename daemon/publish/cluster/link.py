"""A link to Valkey or Redis that comes back by itself.

Every question is either answered in time, or raises an `EngineError` that says in words what is wrong. After one that
was not answered all connections are closed and opened anew, since whatever they still bring belongs to the past.
"""

from __future__ import annotations

import logging
import math
import random
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, TypeAlias, TypeVar

import coredis
import trio

from daemon.publish.cluster.address import Address
from daemon.publish.cluster.entry import StrangeEntryError
from daemon.publish.cluster.trouble import Cause, EngineError, explained

T = TypeVar("T")

AWAY_S: Final = 2.0
"""An engine that has not answered for so long is away: clients are told."""

_ANSWER_S: Final = 1.5
"""How long a question may take; longer than an answer is held back (`daemon.publish.cluster.engine`)."""

_CONNECT_S: Final = 1.5

_HELD_S: Final = 5.0
"""Connections that held for so long were no failed attempt."""

_LONGEST_WAIT_S: Final = 2.0
"""Until the next attempt to connect."""

_REFUSALS: Final = frozenset({"permission", "memory", "other"})
"""Here the engine answers, and the connection is well."""

Client: TypeAlias = "coredis.Redis[bytes] | coredis.RedisCluster[bytes]"

_log: Final = logging.getLogger(__name__)

# What it has to say of its connections is said here, once and in words.
logging.getLogger("coredis").setLevel(logging.CRITICAL)


class Link:
    """Connections to the engine, kept up.

    Attributes:
        address: where it is.
        trouble: what is wrong with it now, in words; "" if it answers.
        heard_s: when it answered last, on the clock of `trio.current_time()`.
        opened_s: when the connections were opened, on the same clock.
        asked: how often it was asked something; `opened`: how often connections were opened.
        failures: what was not answered, by cause.
    """

    def __init__(self, address: Address, *, password: str = "", ca: str = "") -> None:
        """`ca`: the path of the certificates (PEM) that the engine's must be signed by; "" for those of the machine."""
        self.address = address
        self.trouble = "has not answered yet"
        self.heard_s = self.opened_s = -math.inf
        self.asked = self.opened = 0
        self.failures: Counter[Cause] = Counter()
        self._password = password
        self._ca = ca
        self._client: Client | None = None
        self._open = trio.Event()
        self._link = trio.CancelScope()
        self._told = ""
        self._error: EngineError | None = None
        self._failed_s = -math.inf

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
    async def _connected(self) -> AsyncIterator[Client]:
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
            client: Client
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

    def _failed(self, error: EngineError) -> None:
        self.failures[error.cause] += 1
        self._failed_s = trio.current_time()
        self.trouble, self._error = str(error), error
        if self.trouble != self._told:
            self._told = self.trouble
            said = {"event": "engine", "cause": error.cause}
            _log.warning("the engine at %s %s", self.address.words, error, extra=said)

    def _lost(self, words: str) -> EngineError:
        """What it failed with last, or this. Several may raise it, so it is a new one each time."""
        last = self._error
        return EngineError("lost", words) if last is None else EngineError(last.cause, str(last))

    async def ask(self, question: Callable[[Client], Awaitable[T]], within_s: float = _ANSWER_S) -> T:
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
                raise self._lost("is not connected")
        link = self._link
        self.asked += 1
        try:
            with trio.fail_after(within_s):
                answer = await question(client)
        except StrangeEntryError:
            raise  # it answered
        except Exception as error:
            if link.cancel_called:  # another question was not answered, so this one cannot be: that is told already
                raise self._lost("is being connected to anew") from error
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


def _tls(ca: str) -> ssl.SSLContext:
    """Raises: OSError: the certificates cannot be read."""
    return ssl.create_default_context(cafile=ca or None)


def _is_cancelled(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(map(_is_cancelled, error.exceptions))
    return isinstance(error, trio.Cancelled)
