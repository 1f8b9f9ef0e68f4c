"""What the client library and the network say of the engine becomes a sentence that helps."""

import errno
import ssl

import pytest
from coredis import exceptions as redis

from daemon.publish.cluster.trouble import CAUSES, Cause, explained


def wrapped(cause: BaseException) -> BaseException:
    """As the library wraps what happens while it connects."""
    error = redis.ConnectionError("Unable to establish a connection to 127.0.0.1:7000")
    error.__cause__ = OSError("All connection attempts failed")
    error.__cause__.__cause__ = ExceptionGroup("several addresses", [cause]) if isinstance(cause, Exception) else cause
    return ExceptionGroup("Exceptions from Trio nursery", [error])


@pytest.mark.parametrize(
    ("error", "cause", "words"),
    [
        (wrapped(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")), "refused", "refuses connections"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "lost", "cannot be reached: No route to host"),
        (TimeoutError("PING timed out after 1.5 seconds"), "silent", "does not answer in time"),
        (redis.ConnectionError("Connection lost while receiving response"), "lost", "closed the connection"),
        (
            wrapped(redis.AuthenticationFailureError("invalid username-password pair")),
            "password",
            "refuses the user or the password: look at [cluster] url and password",
        ),
        (
            redis.AuthenticationRequiredError("HELLO must be called"),
            "password",
            "asks for a password: set the credential cluster_password, or TICKERD_CLUSTER__PASSWORD",
        ),
        (redis.AuthorizationError("User x has no permissions"), "permission", "does not permit what is needed"),
        (
            redis.ResponseError("The user executing the script can't run this command or subcommand script: 18c9"),
            "permission",
            "does not permit what is needed",
        ),
        (redis.ReadOnlyError("You can't write against a replica"), "readonly", "is a replica, or became one"),
        (redis.ResponseError("READONLY You can't write against a read only replica."), "readonly", "is a replica"),
        (redis.BusyLoadingError("Redis is loading the dataset in memory"), "loading", "is reading its data from disk"),
        (redis.ClusterDownError("The cluster is down"), "down", "is a cluster that is down"),
        (redis.PrimaryNotFoundError("No primary found for 'market'"), "down", "has no primary just now"),
        (
            redis.ResponseError("OOM command not allowed when used memory > 'maxmemory'."),
            "memory",
            "has no memory left: see its maxmemory, and [cluster] stream_bytes",
        ),
        (redis.ResponseError("NOREPLICAS Not enough good replicas"), "down", "has no primary or too few replicas"),
        (redis.ResponseError("MISCONF Redis is configured to save"), "readonly", "cannot write to its disk"),
        (redis.ResponseError("WRONGTYPE of a key"), "other", "answers with an error: WRONGTYPE of a key"),
        (ssl.SSLError("certificate verify failed"), "tls", "cannot be reached by TLS"),
        (ValueError("x" * 1000), "other", "cannot be used: xxx"),
    ],
)
def test_each_kind_has_its_cause_and_its_words(error: BaseException, cause: Cause, words: str) -> None:
    told = explained(error)
    assert (told.cause, cause in CAUSES) == (cause, True)
    assert str(told).startswith(words)
    assert len(str(told)) < 300
