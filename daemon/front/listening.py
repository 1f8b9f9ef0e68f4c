"""The sockets the daemon listens on: opening them, or taking over systemd's; how many connections there may be."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import resource
import socket
from collections.abc import MutableMapping, Sequence
from contextlib import ExitStack
from typing import Annotated, Final

import msgspec
import trio
from msgspec import Meta

from daemon.front.origins import ANY

MOST_WORKERS: Final = 64
"""Processes that serve clients. The connectors and the sequencer, which feed all of them, are one."""

_TRIES: Final = 10
"""How often another free port is looked for that is free on every address."""

_FIRST_PASSED: Final = 3
"""The file descriptors that are passed follow standard error (sd_listen_fds(3))."""

_PASSING: Final = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")

_NO_SUCH_ADDRESS: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

_log: Final = logging.getLogger(__name__)


class ServerSettings(msgspec.Struct, frozen=True):
    """`[server]`: where to listen, and to whom.

    Attributes:
        key: see `certificate`.
    """

    host: Annotated[str | tuple[str, ...], Meta(description='"localhost", an IP address, or a list of them')] = (
        "localhost"
    )
    port: Annotated[int, Meta(ge=0, le=65535)] = 8000
    workers: Annotated[int, Meta(ge=0, le=MOST_WORKERS)] = 1
    backlog: Annotated[int, Meta(ge=1, le=65535)] = 1024
    certificate: str = ""
    key: str = ""
    origins: tuple[str, ...] = (ANY,)
    names: tuple[str, ...] = ()
    open: bool = False
    trusted_proxies: tuple[str, ...] = ()
    proxy_protocol: bool = False
    prefix: str = ""

    @property
    def worker_count(self) -> int:
        """How many processes serve clients: `workers`, or one for each core that this process may use."""
        return self.workers or min(MOST_WORKERS, len(os.sched_getaffinity(0)))

    @property
    def hosts(self) -> tuple[str, ...]:
        """The addresses to listen on, each once; `localhost` is the loopback of IPv4 and of IPv6.

        `::` alone is all of both, as two sockets: whether one socket may take both is the machine's to say
        (`net.ipv6.bindv6only`). Beside an IPv4 address it is all of IPv6.
        """
        given = (self.host,) if isinstance(self.host, str) else self.host
        loopback, everything = ("127.0.0.1", "::1"), ("0.0.0.0", "::")  # noqa: S104 - what the operator asked for
        both = {"localhost": loopback} if any(map(_is_ipv4, given)) else {"localhost": loopback, "::": everything}
        return tuple(dict.fromkeys(address for host in given for address in both.get(_spelled(host), (host,))))


class PassedSocketError(OSError):
    """What was passed is nothing to listen on; `str()` is one line that names it."""


def passed_listeners(environ: MutableMapping[str, str]) -> list[trio.SocketListener]:
    """The listening sockets that systemd passed to this process (sd_listen_fds(3)); none where it passed none.

    systemd keeps them open as well: while this process is stopped, or started again, connections wait in the kernel.
    The variables are taken out of `environ`, and the sockets are not inherited: they are meant for nobody else.

    Raises:
        PassedSocketError: one of them is no TCP socket that listens; all are closed, as far as this process goes.
    """
    count, pid, names = (environ.pop(name, "") for name in _PASSING)
    if not count or pid != str(os.getpid()):
        return []
    if not count.isdecimal():
        raise PassedSocketError(f"LISTEN_FDS={count!r} is no number of file descriptors")
    named = dict(enumerate(names.split(":"), _FIRST_PASSED)) if names else {}
    descriptors = range(_FIRST_PASSED, _FIRST_PASSED + int(count))
    with ExitStack() as until_all_are_good:
        passed = [until_all_are_good.enter_context(_passed(fd, named.get(fd, ""))) for fd in descriptors]
        until_all_are_good.pop_all()
    if passed:
        said = ", ".join(sorted({name for name in named.values() if name})) or "without a name"
        _log.info("listening on what was passed (%s): [server] host, port and backlog are not used", said)
    return [trio.SocketListener(trio.socket.from_stdlib_socket(listening)) for listening in passed]


def _passed(fd: int, name: str) -> socket.socket:
    """A passed descriptor as a socket, once it is certain that it is one to listen on. trio makes it non-blocking."""
    what = f"LISTEN_FDS: descriptor {fd}{f' ({name})' if name else ''}"
    wanted = "a TCP socket that listens is needed (ListenStream= with a port, Accept=no)"
    try:
        os.set_inheritable(fd, False)
        passed = socket.socket(fileno=fd)
    except OSError as error:
        raise PassedSocketError(f"{what} is no socket: {error.strerror}; {wanted}") from None
    wrong = ""
    if passed.family not in (socket.AF_INET, socket.AF_INET6):
        wrong = f"of the family {_name(passed.family)}"
    elif passed.type != socket.SOCK_STREAM:
        wrong = f"of the type {_name(passed.type)}"
    elif not passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        wrong = "not listening"
    if wrong:
        passed.close()
        raise PassedSocketError(f"{what} is {wrong}; {wanted}")
    return passed


def _name(constant: int) -> str:
    """Python's name for a family or type of sockets, where it has one."""
    return getattr(constant, "name", str(constant))


async def open_listeners(server: ServerSettings) -> list[trio.SocketListener]:
    """Listen on every configured address, on the same port; port 0 picks one that is free on all of them.

    An address that this machine does not have, as where IPv6 is switched off, is passed over with a word where others
    are listened on.

    Raises:
        OSError: an address or port cannot be had, or none of the addresses is there; its `filename` is `ADDRESS port
            PORT`.
    """
    for left in reversed(range(_TRIES)):
        port = server.port
        listeners: list[trio.SocketListener] = []
        absent: list[tuple[str, OSError]] = []
        try:
            for host in server.hosts:
                try:
                    opened = await trio.open_tcp_listeners(port, host=host, backlog=server.backlog)
                except OSError as error:
                    named = _named(_cause(error), host, port)
                    if named.errno not in _NO_SUCH_ADDRESS:
                        raise named from None
                    absent.append((host, named))
                    continue
                listeners += opened
                port = port or int(opened[0].socket.getsockname()[1])
            if not listeners:
                raise absent[0][1]
        except OSError as error:
            for listener in listeners:
                await listener.aclose()
            if server.port == 0 and left and error.errno == errno.EADDRINUSE:
                continue
            raise
        for host, why in absent:
            if isinstance(server.host, str):  # nobody named it
                _log.info("%s is not there; listening on IPv%d only", host, 6 if _is_ipv4(host) else 4)
            else:
                _log.warning("not listening on %s: %s; listening on the others", why.filename, why.strerror)
        return listeners
    raise AssertionError("the last try returns or raises")


async def open_groups(server: ServerSettings, count: int) -> list[list[trio.SocketListener]]:
    """So many groups of listeners on the same addresses and port, one for each worker.

    The kernel shares connections out among them (SO_REUSEPORT, socket(7)).

    The first listener of each address is opened as anybody's, and shares only from then on: so a port that another
    process has, another tickerd too, is in use.

    Raises:
        OSError: see `open_listeners`.
    """
    first = await open_listeners(server)
    groups = [first, *([] for _ in range(count - 1))]
    for listener in first if count > 1 else ():
        listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for group in groups[1:]:
            group.append(_beside(listener, server.backlog))
    return groups


def _beside(listener: trio.SocketListener, backlog: int) -> trio.SocketListener:
    """Another one at the same address."""
    name = listener.socket.getsockname()
    another = socket.socket(listener.socket.family, socket.SOCK_STREAM)
    try:
        another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if another.family == socket.AF_INET6:
            only = listener.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            another.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        another.bind(name)
        another.listen(backlog)
    except OSError as error:
        another.close()
        raise _named(error, str(name[0]), name[1]) from None
    return trio.SocketListener(trio.socket.from_stdlib_socket(another))


def base_urls(listeners: Sequence[trio.SocketListener], *, secure: bool) -> list[str]:
    """The listeners' addresses, as `http://127.0.0.1:8000`."""
    scheme = "https" if secure else "http"
    names = [listener.socket.getsockname() for listener in listeners]
    return [f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}" for host, port, *_ in names]


def raise_descriptor_limit(wanted: int) -> int:
    """Let the process open as many files as it may, and say so where that is fewer than `wanted`. Returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = hard if hard != resource.RLIM_INFINITY else max(soft, wanted)
    if soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        _log.warning("%d open files are allowed, %d could be wanted: raise LimitNOFILE or ulimit -n", allowed, wanted)
    return allowed


def _is_ipv4(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 4
    except ValueError:
        return False


def _spelled(host: str) -> str:
    """The address in its shortest form; anything else as it is."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host


def _cause(error: OSError) -> OSError:
    """What trio wrapped: it reports all addresses of a name at once."""
    cause = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return cause if isinstance(cause, OSError) else error


def _named(error: OSError, host: str, port: int) -> OSError:
    return OSError(error.errno, error.strerror or str(error), f"{host} port {port}")
