"""Listeners over real sockets: errors that name what could not be had, one port on all addresses, TLS."""

import errno
import logging
import os
import resource
import socket
import ssl
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from daemon.front import listening
from daemon.front.certificate import tls_context
from daemon.front.listening import (
    PassedSocketError,
    ServerSettings,
    base_urls,
    open_listeners,
    passed_listeners,
    raise_descriptor_limit,
)
from tests.daemon.serving import certificate


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of 127.0.0.1 that somebody listens on."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def _ports(listeners: list[trio.SocketListener]) -> dict[str, int]:
    names = [listener.socket.getsockname() for listener in listeners]
    return {name[0]: name[1] for name in names}


async def _close(listeners: list[trio.SocketListener]) -> None:
    for listener in listeners:
        await listener.aclose()


def _has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _without_ipv6(code: int) -> Callable[..., Awaitable[list[trio.SocketListener]]]:
    """`trio.open_tcp_listeners` on a machine that has none."""
    real = trio.open_tcp_listeners

    async def opened(port: int, *, host: str, backlog: int | None = None) -> list[trio.SocketListener]:
        if ":" in host:
            # As trio reports a family that the kernel does not know.
            raise OSError(code, "no such family") from ExceptionGroup("", [OSError(code, "no IPv6")])
        return await real(port, host=host, backlog=backlog)

    return opened


async def test_a_port_in_use_is_named_with_its_address(taken: int) -> None:
    with pytest.raises(OSError, match="in use") as caught:
        await open_listeners(ServerSettings(port=taken))
    assert caught.value.errno == errno.EADDRINUSE
    assert caught.value.filename == f"127.0.0.1 port {taken}"


async def test_a_failure_on_the_second_address_closes_the_first(taken: int) -> None:
    with pytest.raises(OSError, match="in use"):
        await open_listeners(ServerSettings(host=("127.0.0.2", "127.0.0.1"), port=taken))
    listeners = await open_listeners(ServerSettings(host="127.0.0.2", port=taken))
    await _close(listeners)


async def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(OSError, match="assign") as caught:
        await open_listeners(ServerSettings(host="192.0.2.1", port=0))
    assert caught.value.errno == errno.EADDRNOTAVAIL
    assert caught.value.filename == "192.0.2.1 port 0"


@pytest.mark.skipif(not _has_ipv6_loopback(), reason="this machine has no IPv6")
async def test_port_0_is_one_port_on_both_families() -> None:
    listeners = await open_listeners(ServerSettings(port=0))
    ports = _ports(listeners)
    assert set(ports) == {"127.0.0.1", "::1"}
    [port] = set(ports.values())
    assert base_urls(listeners, secure=False) == [f"http://127.0.0.1:{port}", f"http://[::1]:{port}"]
    for host in ports:
        await (await trio.open_tcp_stream(host, port)).aclose()
    await _close(listeners)


async def test_another_port_is_picked_where_the_first_is_not_free_on_every_address(
    taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first address may get a port that somebody has on the second."""
    real, asked = trio.open_tcp_listeners, [taken]

    async def first_gets_a_taken_port(
        port: int, *, host: str | None = None, backlog: int | None = None
    ) -> list[trio.SocketListener]:
        return await real(asked.pop() if port == 0 and asked else port, host=host, backlog=backlog)

    monkeypatch.setattr(trio, "open_tcp_listeners", first_gets_a_taken_port)
    listeners = await open_listeners(ServerSettings(host=("127.0.0.2", "127.0.0.1"), port=0))
    assert asked == []
    [port] = set(_ports(listeners).values())
    assert port != taken
    await _close(listeners)


@pytest.mark.parametrize("code", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
async def test_localhost_without_ipv6_is_ipv4_alone(
    code: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trio, "open_tcp_listeners", _without_ipv6(code))
    with caplog.at_level(logging.INFO):
        listeners = await open_listeners(ServerSettings(port=0))
    assert set(_ports(listeners)) == {"127.0.0.1"}
    assert "::1 is not there; listening on IPv4 only" in caplog.messages
    await _close(listeners)
    with pytest.raises(OSError, match="no IPv6") as caught:  # asked for by name alone, it has to be there
        await open_listeners(ServerSettings(host="::1", port=0))
    assert str(caught.value.filename).startswith("::1 port ")


@pytest.mark.parametrize("code", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
@pytest.mark.parametrize(
    ("host", "there"),
    [
        (("127.0.0.1", "::1"), {"127.0.0.1"}),
        (("::1", "127.0.0.1"), {"127.0.0.1"}),
        (("2001:db8::1", "127.0.0.2", "127.0.0.1"), {"127.0.0.1", "127.0.0.2"}),
        (("127.0.0.1", "::"), {"127.0.0.1"}),
    ],
)
async def test_of_a_list_what_is_there_is_listened_on_and_what_is_not_is_named(
    host: tuple[str, ...],
    there: set[str],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(trio, "open_tcp_listeners", _without_ipv6(code))
    listeners = await open_listeners(ServerSettings(host=host, port=0))
    assert set(_ports(listeners)) == there
    assert len(set(_ports(listeners).values())) == 1
    await _close(listeners)
    [warning] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    [absent] = [each for each in host if each not in there]
    assert warning.startswith(f"not listening on {absent} port ")
    assert "no IPv6" in warning


async def test_of_a_list_something_has_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio, "open_tcp_listeners", _without_ipv6(errno.EAFNOSUPPORT))
    with pytest.raises(OSError, match="no IPv6") as caught:
        await open_listeners(ServerSettings(host=("::1", "2001:db8::1"), port=0))
    assert str(caught.value.filename).startswith("::1 port ")


@pytest.mark.parametrize("host", ["::", "0::0", ("::",)])
def test_two_colons_are_all_addresses_of_both_kinds(host: str | tuple[str, ...]) -> None:
    assert ServerSettings(host=host).hosts == ("0.0.0.0", "::")
    assert ServerSettings(host=("127.0.0.1", "::")).hosts == ("127.0.0.1", "::")
    assert ServerSettings(host=("0.0.0.0", "::")).hosts == ("0.0.0.0", "::")


async def test_where_all_addresses_are_listened_on_a_client_of_either_kind_gets_in() -> None:
    listeners = await open_listeners(ServerSettings(host="::", port=0))
    [port] = set(_ports(listeners).values())
    assert "0.0.0.0" in _ports(listeners)
    for address in ("127.0.0.1", *(["::1"] if _has_ipv6_loopback() else [])):
        with socket.create_connection((address, port), 5):
            pass
    await _close(listeners)


async def test_all_addresses_without_ipv6_are_those_of_ipv4(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trio, "open_tcp_listeners", _without_ipv6(errno.EAFNOSUPPORT))
    with caplog.at_level(logging.INFO):
        listeners = await open_listeners(ServerSettings(host="::", port=0))
    assert set(_ports(listeners)) == {"0.0.0.0"}
    assert ":: is not there; listening on IPv4 only" in caplog.messages
    await _close(listeners)


async def test_addresses_are_written_for_the_scheme() -> None:
    listeners = await open_listeners(ServerSettings(host="127.0.0.1", port=0))
    [url] = base_urls(listeners, secure=True)
    assert url.startswith("https://127.0.0.1:")
    await _close(listeners)


def test_no_certificate_is_no_tls() -> None:
    assert tls_context(ServerSettings()) is None


def test_tls_is_1_2_and_newer_and_asks_clients_for_nothing(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    context = tls_context(ServerSettings(certificate=str(pem), key=str(key)))
    assert context is not None
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_NONE


def _handshake(server: ssl.SSLContext, pem: Path, newest: ssl.TLSVersion) -> str | None:
    """The version that a client gets that speaks nothing newer, and would speak anything older. Raises: SSLError."""
    client = ssl.create_default_context(cafile=str(pem))
    client.set_ciphers("DEFAULT:@SECLEVEL=0")  # Debian's OpenSSL offers 1.0 and 1.1 to nobody otherwise
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        client.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        client.maximum_version = newest
    upwards, downwards = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = client.wrap_bio(downwards, upwards, server_hostname="localhost")
    ours = server.wrap_bio(upwards, downwards, server_side=True)
    for side in (theirs, ours) * 3:
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return ours.version()


def test_a_client_that_speaks_only_an_older_tls_is_refused(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    context = tls_context(ServerSettings(certificate=str(pem), key=str(key)))
    assert context is not None
    assert _handshake(context, pem, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    assert _handshake(context, pem, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
        _handshake(context, pem, ssl.TLSVersion.TLSv1_1)
    # A server that allows it is spoken to: it is the daemon that refused.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    assert _handshake(context, pem, ssl.TLSVersion.TLSv1_1) == "TLSv1.1"


def test_a_certificate_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    with pytest.raises(FileNotFoundError):
        tls_context(ServerSettings(certificate=str(tmp_path / "none.pem"), key=str(key)))
    (tmp_path / "prose.pem").write_text("this is no certificate")
    with pytest.raises(ssl.SSLError):
        tls_context(ServerSettings(certificate=str(tmp_path / "prose.pem"), key=str(key)))
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(ssl.SSLError, match=r"(?i)mismatch"):
        tls_context(ServerSettings(certificate=str(pem), key=str(certificate(other)[1])))


def test_a_key_with_a_passphrase_is_an_error_and_no_question(tmp_path: Path) -> None:
    """OpenSSL would ask the terminal, and a daemon would wait for an answer for ever."""
    pem, key = certificate(tmp_path, passphrase="open sesame")
    with pytest.raises(ssl.SSLError):
        tls_context(ServerSettings(certificate=str(pem), key=str(key)))


def test_the_descriptor_limit_is_raised_as_far_as_it_goes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    limits = [256, 4096]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.__setitem__(slice(None), new))
    assert raise_descriptor_limit(1000) == 4096
    assert limits == [4096, 4096]
    assert caplog.messages == []
    assert raise_descriptor_limit(10_000) == 4096
    assert caplog.messages == ["4096 open files are allowed, 10000 could be wanted: raise LimitNOFILE or ulimit -n"]
    limits[:] = [256, resource.RLIM_INFINITY]
    assert raise_descriptor_limit(1000) == 1000
    assert limits == [1000, resource.RLIM_INFINITY]


def test_every_try_for_a_port_failing_is_the_last_ones_error(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = 0

    async def never(port: int, *, host: str | None = None, backlog: int | None = None) -> list[trio.SocketListener]:
        nonlocal tries
        tries += 1
        raise OSError(errno.EADDRINUSE, "in use")

    monkeypatch.setattr(trio, "open_tcp_listeners", never)
    with pytest.raises(OSError, match="in use"):
        trio.run(open_listeners, ServerSettings(port=0))
    assert tries == listening._TRIES


# Sockets that systemd passes.


class Passing:
    """Puts descriptors where systemd puts them, but that the numbers before theirs are taken here."""

    FIRST = 200

    def __init__(self) -> None:
        self._next = self.FIRST

    def put(self, passed: int) -> None:
        os.dup2(passed, self._next, inheritable=True)
        self._next += 1

    def environ(self, **changed: str) -> dict[str, str]:
        count = str(self._next - self.FIRST)
        return {
            "HOME": "/",
            "LISTEN_FDS": count,
            "LISTEN_PID": str(os.getpid()),
            "LISTEN_FDNAMES": "tickerd",
            **changed,
        }

    def close(self) -> None:
        for fd in range(self.FIRST, self._next):
            with suppress(OSError):
                os.close(fd)
        self._next = self.FIRST


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Passing]:
    monkeypatch.setattr(listening, "_FIRST_PASSED", Passing.FIRST)
    passing = Passing()
    yield passing
    passing.close()


async def test_passed_sockets_are_listened_on_and_the_variables_are_gone(
    passing: Passing, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "daemon.front.listening")
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.2", 0)) as second:
        passing.put(first.fileno())
        passing.put(second.fileno())
        environ = passing.environ(LISTEN_FDNAMES="web:web")
        listeners = passed_listeners(environ)
        assert environ == {"HOME": "/"}
        assert [listener.socket.getsockname() for listener in listeners] == [first.getsockname(), second.getsockname()]
        for fd in (200, 201):
            assert not os.get_inheritable(fd)
            assert not os.get_blocking(fd)
        with socket.create_connection(first.getsockname(), timeout=5):
            await (await listeners[0].accept()).aclose()
        await _close(listeners)
        # systemd's own descriptor goes on to take connections.
        with socket.create_connection(first.getsockname(), timeout=5):
            pass
    assert caplog.messages == ["listening on what was passed (web): [server] host, port and backlog are not used"]


@pytest.mark.parametrize(
    "changed",
    [{"LISTEN_PID": "1"}, {"LISTEN_PID": ""}, {"LISTEN_FDS": ""}, {"LISTEN_FDS": "0"}],
    ids=lambda changed: "-".join(*changed.items()),
)
def test_what_is_not_meant_for_this_process_is_left_alone(passing: Passing, changed: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listens:
        passing.put(listens.fileno())
        environ = passing.environ(**changed)
        assert passed_listeners(environ) == []
        assert environ == {"HOME": "/"}
        assert os.get_inheritable(200)


def test_without_activation_nothing_is_passed() -> None:
    assert passed_listeners({"HOME": "/"}) == []


def _refused(passing: Passing, *fds: int, **changed: str) -> str:
    passing.close()
    for fd in fds:
        passing.put(fd)
    with pytest.raises(PassedSocketError) as caught:
        passed_listeners(passing.environ(**changed))
    return str(caught.value)


def test_what_is_nothing_to_listen_on_is_refused_by_name(passing: Passing, tmp_path: Path) -> None:
    wanted = "a TCP socket that listens is needed (ListenStream= with a port, Accept=no)"
    what = "LISTEN_FDS: descriptor 201"
    with (
        socket.create_server(("127.0.0.1", 0)) as listens,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.socket(socket.AF_INET) as mute,
        socket.socket(socket.AF_UNIX) as local,
        (tmp_path / "file").open("w") as file,
    ):
        local.bind(str(tmp_path / "socket"))
        local.listen()
        good = listens.fileno()
        said = _refused(passing, good, datagrams.fileno(), LISTEN_FDNAMES="web:dns")
        assert said == f"{what} (dns) is of the type SOCK_DGRAM; {wanted}"
        assert _refused(passing, good, mute.fileno(), LISTEN_FDNAMES="") == f"{what} is not listening; {wanted}"
        assert _refused(passing, good, local.fileno()) == f"{what} is of the family AF_UNIX; {wanted}"
        assert _refused(passing, good, file.fileno()).startswith(f"{what} is no socket: ")
        assert _refused(passing, good, LISTEN_FDS="2") == f"{what} is no socket: Bad file descriptor; {wanted}"
    assert _refused(passing, LISTEN_FDS="two") == "LISTEN_FDS='two' is no number of file descriptors"
