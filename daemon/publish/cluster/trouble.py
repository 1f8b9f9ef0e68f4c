"""What is wrong with the engine, in words: errors of the client library and of the network become one kind of ours.

Pure.
"""

from __future__ import annotations

import errno
import re
import ssl
from collections.abc import Iterator
from typing import Final, Literal, TypeAlias, get_args

from coredis import exceptions as redis

Cause: TypeAlias = Literal[
    "refused", "silent", "lost", "password", "permission", "tls", "readonly", "loading", "down", "memory", "other"
]
"""Why the engine could not be asked; `/metrics` counts by these."""

CAUSES: Final[tuple[Cause, ...]] = get_args(Cause)

_LONGEST: Final = 200


class EngineError(Exception):
    """The engine did not answer as it should. Its text says why, as the end of a sentence about the engine.

    Attributes:
        cause: by which it is counted.
    """

    def __init__(self, cause: Cause, words: str) -> None:
        super().__init__(words)
        self.cause: Cause = cause


def explained(error: BaseException) -> EngineError:
    """What the error means."""
    chain = list(_chain(error))
    for one in chain:
        if (found := _explained(one)) is not None:
            return found
    return EngineError("other", f"cannot be used: {_brief(chain[0])}")


def _explained(error: BaseException) -> EngineError | None:
    text = str(error)
    match error:
        case redis.AuthenticationFailureError():
            return EngineError("password", "refuses the user or the password: look at [cluster] url and password")
        case redis.AuthenticationRequiredError():
            return EngineError(
                "password",
                "asks for a password: set the credential cluster_password, or TICKERD_CLUSTER__PASSWORD",
            )
        case redis.AuthorizationError():
            return EngineError("permission", f"does not permit what is needed: {_brief(error)}")
        case redis.ReadOnlyError():
            return EngineError("readonly", "is a replica, or became one: it takes no entries")
        case redis.BusyLoadingError():
            return EngineError("loading", "is reading its data from disk")
        case redis.ClusterDownError():
            return EngineError("down", "is a cluster that is down")
        case redis.PrimaryNotFoundError() | redis.StalePrimaryError() | redis.ReplicaNotFoundError():
            return EngineError("down", f"has no primary just now: {_brief(error)}")
        case redis.ReplicationError():
            return EngineError("down", "has too few replicas that answer")
        case redis.RedisError() if code := re.match(
            r"(?:ERR )?(OOM|NOPERM|MASTERDOWN|NOREPLICAS|MISCONF|NOAUTH)", text
        ):
            return _coded(code[1], error)
        case redis.RedisError() if "OOM command not allowed" in text or "command not allowed when used memory" in text:
            return _coded("OOM", error)
        case redis.RedisError() if "-READONLY" in text or "read only replica" in text:
            return EngineError("readonly", "is a replica, or became one: it takes no entries")
        case redis.RedisError() if any(
            words in text for words in ("NOPERM", "ACL failure", "permissions", "can't run this command")
        ):
            return _coded("NOPERM", error)
        case ssl.SSLError():
            return EngineError(
                "tls", f"cannot be reached by TLS: {getattr(error, 'verify_message', '') or _brief(error)}"
            )
        case ConnectionRefusedError():
            return EngineError("refused", "refuses connections")
        case TimeoutError():
            return EngineError("silent", "does not answer in time")
        case OSError() if error.errno is not None:
            if error.errno == errno.ECONNREFUSED:
                return EngineError("refused", "refuses connections")
            return EngineError("lost", f"cannot be reached: {error.strerror or _brief(error)}")
        case redis.ConnectionError() if "lost" in text.lower():
            return EngineError("lost", "closed the connection")
        case redis.ResponseError():
            return EngineError("other", f"answers with an error: {_brief(error)}")
        case _:
            return None


def _coded(code: str, error: BaseException) -> EngineError:
    match code:
        case "OOM":
            return EngineError("memory", "has no memory left: see its maxmemory, and [cluster] stream_bytes")
        case "NOPERM":
            return EngineError("permission", f"does not permit what is needed: {_brief(error)}")
        case "NOAUTH":
            return EngineError("password", "asks for a password")
        case "MISCONF":
            return EngineError("readonly", "cannot write to its disk, and so takes no entries")
        case _:
            return EngineError("down", f"has no primary or too few replicas: {_brief(error)}")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, those that it is a group of, and those that it came from: what is known best comes first."""
    pending, seen = [error], set[int]()
    found: list[BaseException] = []
    while pending:
        one = pending.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, BaseExceptionGroup):
            pending += one.exceptions
        else:
            found.append(one)
        pending += [each for each in (one.__cause__, one.__context__) if each is not None]
    # An error of connecting only wraps what the network said.
    yield from sorted(found, key=lambda each: type(each) is redis.ConnectionError)


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
