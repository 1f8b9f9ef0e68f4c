"""How often an address, and a token, may ask: judged by itself, and as clients meet it over real sockets."""

import ipaddress
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from daemon.front import rates
from daemon.front.limits import Limits
from daemon.front.rates import Buckets, Rate, Rates, weight
from daemon.front.request import Refused, Request
from protocol.codes import ErrorCode
from protocol.grant import Grant
from tests.daemon.front.test_admitted import BOT, PARTNER, TOKENS, Door, open_door
from tests.daemon.serving import SOON_S, Gateway, handshake, open_gateway, policy

FEW = Limits(
    requests_per_s=2,
    requests_burst=6,
    handshakes_per_s=1,
    handshakes_burst=3,
    tests_per_s=1,
    tests_burst=2,
    test_bytes=10,
    clients=20,
    clients_per_address=4,
)


def ask(peer: str = "192.0.2.1", path: str = "/", *, grant: str = "", vouched: bool = False) -> Request:
    return Request(method="GET", path=path, peer=peer, vouched=vouched, grant=Grant(grant))


def allowed(judge: Any, *given: Any, **named: Any) -> int:
    """How often it may be asked for at once."""
    for count in range(1000):
        try:
            judge(*given, **named)
        except Refused as refused:
            if (refused.status, refused.code) != (429, ErrorCode.RATE_LIMITED):
                raise
            return count
    return 1000


# Judged.


async def test_an_address_may_ask_for_so_much_at_once_and_then_for_so_much_a_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    judge = Rates(FEW)
    assert allowed(judge.request, ask(), arrives=False) == 6
    with pytest.raises(Refused) as caught:
        judge.request(ask(), arrives=False)
    told = re.search(
        r"192\.0\.2\.1 asks for more than 2 requests/s \(in a burst 6\).* in ([0-9.]+) s", str(caught.value)
    )
    assert told
    retry_s = int(dict(caught.value.headers)["Retry-After"])
    assert retry_s - 1 <= float(told[1]) <= retry_s
    assert "limits.requests_per_s" in caught.value.note
    assert allowed(judge.request, ask("192.0.2.2"), arrives=False) == 6, "another one is not concerned"
    await trio.sleep(retry_s)
    judge.request(ask(), arrives=False)
    await trio.sleep(100)
    assert allowed(judge.request, ask(), arrives=False) == 6


async def test_what_costs_more_counts_as_more(autojump_clock: trio.testing.MockClock) -> None:
    for path, each in (
        ("/", 6),
        ("/channels", 3),
        ("/snapshot/x", 3),
        ("/history/x", 1),
        ("/gaps", 2),
        ("/metrics", 2),
    ):
        assert allowed(Rates(FEW).request, ask(path=path), arrives=False) == each == max(1, int(6 / weight(path)))


async def test_what_counts_as_more_than_there_may_be_at_once_can_still_be_had(
    autojump_clock: trio.testing.MockClock,
) -> None:
    judge = Rates(msgspec.structs.replace(FEW, requests_burst=1))
    assert allowed(judge.request, ask(path="/metrics"), arrives=False) == 1


async def test_who_keeps_asking_is_let_in_later_and_in_the_end_not_answered(
    autojump_clock: trio.testing.MockClock,
) -> None:
    judge, stubborn, patient = Rates(FEW), "192.0.2.1", "192.0.2.2"
    for peer in (stubborn, patient):
        allowed(judge.request, ask(peer), arrives=False)
    for _ in range(50):
        with suppress(Refused):
            judge.request(ask(stubborn), arrives=False)
    assert judge.owes(stubborn)
    assert not judge.owes(patient)
    await trio.sleep(0.7)
    judge.request(ask(patient), arrives=False)
    with pytest.raises(Refused):
        judge.request(ask(stubborn), arrives=False)
    await trio.sleep(2)
    judge.request(ask(stubborn), arrives=False)
    assert not judge.owes(stubborn)


async def test_clients_that_come_are_counted_for_themselves(autojump_clock: trio.testing.MockClock) -> None:
    judge = Rates(FEW)
    assert allowed(judge.request, ask(path="/ws"), arrives=True) == 3
    assert allowed(judge.request, ask(path="/events"), arrives=True) == 0, "both ways to come are one"
    assert allowed(judge.request, ask(), arrives=False) == 6


async def test_probes_are_counted_for_themselves(autojump_clock: trio.testing.MockClock) -> None:
    """Behind a proxy that is not named, a flood of something else must not make the daemon look dead."""
    judge = Rates(FEW)
    assert allowed(judge.request, ask("127.0.0.1"), arrives=False) == 6
    assert allowed(judge.request, ask("127.0.0.1", "/healthz"), arrives=False) == 6
    assert allowed(judge.request, ask("127.0.0.1", "/readyz"), arrives=False) == 0, "both probes are one"
    assert allowed(judge.request, ask("127.0.0.1"), arrives=False) == 0


async def test_an_ipv6_subscriber_is_one_address(autojump_clock: trio.testing.MockClock) -> None:
    judge = Rates(FEW)
    assert allowed(judge.request, ask("2001:db8:0:1::1"), arrives=False) == 6
    assert allowed(judge.request, ask("2001:db8:0:1:ffff::2"), arrives=False) == 0
    assert allowed(judge.request, ask("2001:db8:0:2::1"), arrives=False) == 6


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.3.2.1", "::1"])
async def test_many_clients_may_come_from_this_machine_but_no_more_requests(
    peer: str, autojump_clock: trio.testing.MockClock
) -> None:
    judge = Rates(FEW)
    assert allowed(judge.request, ask(peer), arrives=True) == 3 * 20 / 4
    assert allowed(judge.request, ask(peer), arrives=False) == 6
    assert all(judge.connection(peer, tls=tls) is None for tls in (True, False) * 100)


async def test_a_trusted_proxy_stands_for_many_and_its_clients_for_themselves(
    autojump_clock: trio.testing.MockClock,
) -> None:
    judge = Rates(FEW, (ipaddress.ip_network("10.0.0.0/8"),))
    assert allowed(judge.request, ask("10.1.2.3"), arrives=True) == 15
    assert allowed(judge.request, ask("10.1.2.3"), arrives=False) == 30
    assert allowed(judge.request, ask("192.0.2.1", vouched=True), arrives=False) == 6
    assert all(judge.connection("10.1.2.3", tls=True) is None for _ in range(100))


async def test_a_token_stands_for_ten_addresses(autojump_clock: trio.testing.MockClock) -> None:
    judge = Rates(FEW)
    assert allowed(judge.token, ask("192.0.2.1", grant="bot"), arrives=False) == 60
    assert allowed(judge.token, ask("192.0.2.2", grant="bot"), arrives=False) == 0
    assert allowed(judge.token, ask("192.0.2.2", grant="other"), arrives=False) == 60
    assert allowed(judge.token, ask(grant="bot"), arrives=True) == 30
    assert allowed(judge.token, ask(), arrives=False) == 1000, "without one there is nothing to count by"


async def test_connections_are_paid_for_and_dearly_with_tls(autojump_clock: trio.testing.MockClock) -> None:
    for tls, count in ((False, 12), (True, 1)):
        judge = Rates(FEW)
        assert [judge.connection("192.0.2.1", tls=tls) is None for _ in range(20)].count(True) == count
        refused = judge.connection("192.0.2.1", tls=tls)
        assert refused is not None
        assert refused.status == 429


async def test_test_messages_have_a_rate_and_a_size(autojump_clock: trio.testing.MockClock) -> None:
    judge = Rates(FEW)
    assert allowed(judge.test, ask(), "hello") == 2
    assert allowed(judge.test, ask(grant="bot"), "hello") == 2
    assert allowed(judge.test, ask("192.0.2.9", grant="bot"), "hello") == 0
    for number in range(8):
        assert allowed(judge.test, ask(grant=f"bot-{number}"), "hello") == 2
    with pytest.raises(Refused, match="everybody together asks for more than 10 tests/s"):
        judge.test(ask(grant="another"), "hello")
    with pytest.raises(Refused, match="11 bytes; 10 at most") as caught:
        judge.test(ask("192.0.2.3"), "x" * 9 + "\xe9")
    assert (caught.value.status, caught.value.code) == (413, ErrorCode.TOO_LARGE)


async def test_other_limits_hold_at_once(autojump_clock: trio.testing.MockClock) -> None:
    judge = Rates(FEW)
    allowed(judge.request, ask(), arrives=False)
    judge.adopt(msgspec.structs.replace(FEW, requests_per_s=100, requests_burst=50), ())
    await trio.sleep(1)
    assert allowed(judge.request, ask(), arrives=False) == 50


def test_no_more_buckets_are_kept_than_there_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "_MOST_BUCKETS", 3)
    buckets, rate = Buckets(), Rate("requests", 1, 1)
    for name in ("a", "b", "c", "a", "d", "e"):
        buckets.take(name, 1, rate, 0.0)
    assert len(buckets) == 3
    assert [buckets.level(name, rate, 0.0) > 0 for name in "abcde"] == [False, True, True, False, False]


def test_a_million_addresses_cost_no_more_time_each_than_a_few() -> None:
    """To find the one that makes room once took 100 us: a walk over those that had made room before."""
    buckets, rate = Buckets(), Rate("requests", 1, 1)
    for number in range(rates._MOST_BUCKETS):
        buckets.take(f"{number}", 1, rate, 0.0)
    began_s = time.thread_time()
    for number in range(100_000):
        buckets.take(f"another {number}", 1, rate, 0.0)
    assert time.thread_time() - began_s < 3.0
    assert len(buckets) == rates._MOST_BUCKETS


# As clients meet it.

ASK = b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n"


def restrict(gateway: Gateway, **changes: Any) -> None:
    limits = msgspec.structs.replace(gateway.door.admission.limits, **changes)
    gateway.door.admission.policy = policy(limits, trusted_proxies=("127.0.0.1",))


async def answered(gateway: Gateway, sent: bytes) -> Sequence[bytes]:
    """The status of each answer until the connection ends."""
    received = b""
    with trio.fail_after(SOON_S):
        async with await gateway.dial() as stream:
            await stream.send_all(sent)
            await stream.send_eof()
            async for data in stream:
                received += data
    return re.findall(rb"HTTP/1\.1 (\d\d\d) ", received)


def from_(address: str, sent: bytes = ASK) -> bytes:
    return sent.replace(b"Host:", f"X-Forwarded-For: {address}\r\nHost:".encode())


async def test_pipelined_requests_pay_the_rate_and_end_with_it() -> None:
    async with open_gateway() as gateway:
        restrict(gateway, requests_per_s=0.5, requests_burst=5)
        assert await answered(gateway, from_("192.0.2.1") * 2000) == [b"200"] * 5 + [b"429"]
        assert await answered(gateway, from_("192.0.2.1")) == [b"429"]
        assert await answered(gateway, from_("192.0.2.2") * 3) == [b"200"] * 3
        assert gateway.door.refusals[ErrorCode.RATE_LIMITED] == 2
        restrict(gateway)


async def test_what_cannot_be_understood_pays_the_rate_too() -> None:
    """More fields than a query may have: a 400 behind which the connection stays open."""
    puzzling = ASK.replace(b"/x", b"/x?" + b"a&" * 40)
    async with open_gateway() as gateway:
        limits = msgspec.structs.replace(gateway.door.admission.limits, requests_per_s=0.5, requests_burst=5)
        gateway.door.admission.policy = policy(limits)
        assert await answered(gateway, puzzling * 500) == [b"400"] * 5 + [b"429"]
        assert await answered(gateway, ASK) == [b"429"]
        restrict(gateway)


async def test_whoever_is_on_this_machine_is_one_address_too() -> None:
    async with open_gateway() as gateway:
        limits = msgspec.structs.replace(gateway.door.admission.limits, requests_per_s=0.5, requests_burst=5)
        gateway.door.admission.policy = policy(limits)
        assert await answered(gateway, ASK * 2000) == [b"200"] * 5 + [b"429"]
        restrict(gateway)


async def test_a_refusal_says_when_to_come_back_and_a_page_may_read_it() -> None:
    async with open_door("[limits]\nrequests_per_s = 0.5\nrequests_burst = 1\n") as door:
        assert (await door.ask("/healthz")).status == 200
        asked = await door.ask("/healthz", "Origin: https://page.example")
        assert (asked.status, asked.error["code"]) == (429, "rate_limited")
        assert 1 <= int(asked.headers["retry-after"]) <= 3
        assert (asked.headers["access-control-allow-origin"], asked.headers["connection"]) == ("*", "close")
        assert "127.0.0.1 asks for more than 0.5 requests/s (in a burst 1)" in asked.error["message"]


@pytest.mark.parametrize("target", ["/ws", "/events?channels=ethprice"])
async def test_clients_that_come_and_go_are_counted(target: str) -> None:
    sent = handshake() if target == "/ws" else f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    good = b"101" if target == "/ws" else b"200"
    async with open_gateway() as gateway, AsyncExitStack() as clients:
        restrict(gateway, handshakes_per_s=0.01, handshakes_burst=3)
        statuses = []
        for _ in range(5):
            async with await gateway.dial() as stream:
                await stream.send_all(from_("192.0.2.1", sent))
                with trio.fail_after(SOON_S):
                    statuses.append((await stream.receive_some())[9:12])
        assert statuses == [good] * 3 + [b"429"] * 2
        other = await clients.enter_async_context(await gateway.dial())
        await other.send_all(from_("192.0.2.2", sent))
        assert (await other.receive_some())[9:12] == good
        assert await answered(gateway, from_("192.0.2.1") * 3) == [b"200"] * 3
        restrict(gateway)


async def test_a_token_is_limited_wherever_it_comes_from() -> None:
    more = '[server]\ntrusted_proxies = ["127.0.0.1"]\n[limits]\nrequests_per_s = 0.01\nrequests_burst = 2\n'
    async with open_door(more + TOKENS) as door:
        statuses = []
        for number in range(12):
            headers = (f"X-Forwarded-For: 192.0.2.{number}", f"Authorization: Bearer {PARTNER}")
            statuses.append((await door.ask("/snapshot/binance_prices", *headers)).status)
        assert statuses == [200] * 10 + [429] * 2
        other = ("X-Forwarded-For: 192.0.2.99", f"Authorization: Bearer {BOT}")
        assert (await door.ask("/snapshot/binance_prices", *other)).status == 200


@asynccontextmanager
async def open_to_tests(text: str) -> AsyncIterator[Door]:
    async with open_door("[limits]\ntests_per_s = 0.01\ntests_burst = 2\ntest_bytes = 20\n" + text) as door:
        yield door


async def _post(door: Door, message: str = "hello", token: str = "") -> int:
    body = msgspec.json.encode({"message": message})
    headers = (f"Authorization: Bearer {token}",) if token else ()
    return (await door.ask("/ws/test", *headers, method="POST", body=body)).status


async def test_who_may_send_test_messages_may_not_send_many_nor_long_ones() -> None:
    async with open_to_tests("") as door:
        head = door.daemon.tape.head
        assert await _post(door, "x" * 21) == 413
        assert [await _post(door, "x" * 20) for _ in range(4)] == [200, 200, 429, 429]
        assert door.daemon.tape.head == head + 2
        assert (await door.ask("/healthz")).status == 200, "everything else goes on"


async def test_only_a_token_that_says_so_sends_test_messages() -> None:
    async with open_to_tests(TOKENS) as door:
        head = door.daemon.tape.head
        asked = await door.ask(f"/ws/test?token={PARTNER}", method="POST", body=b'{"message":"hello"}')
        assert (asked.status, asked.error["code"]) == (403, "forbidden")
        assert "test = true" in asked.error["message"]
        assert door.daemon.tape.head == head
        assert [await _post(door, token=BOT) for _ in range(3)] == [200, 200, 429]
        assert door.daemon.tape.head == head + 2
