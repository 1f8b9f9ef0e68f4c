"""Bodies for those who need one now and then: through the venue's one gate, one after the other."""

import errno
import gc
import socket
import tracemalloc
from collections.abc import AsyncIterator

import httpx
import pytest
import trio
from trio.testing import MockClock

from connectors.base import ConnectorError, VenueRefused, VenueThrottled, VenueTimeout, VenueUnavailable
from connectors.poll.asking import HostFetcher
from connectors.poll.host import Host
from connectors.poll.venue import Answer, Pause
from daemon.host.loop_clock import passed_s
from tests.connectors.poll.test_poller import START_MS, Venue, answers_with


def explain(answer: Answer) -> ConnectorError | None:
    match answer.status:
        case 200:
            return None
        case 429:
            return VenueThrottled("Acme asked for a pause", retry_after_s=answer.retry_after_s)
        case 403:
            return VenueRefused("Acme refuses", retry_after_s=600)
        case _:
            return VenueUnavailable(f"HTTP {answer.status}")


def now_ms() -> int:
    return START_MS + round(trio.current_time() * 1000)


def fetcher(host: Host, pause: Pause | None = None, most_bytes: int = 1000) -> HostFetcher:
    return HostFetcher(host, explain=explain, now_ms=now_ms, pause=lambda _: pause, most_bytes=most_bytes)


async def test_a_good_body_comes_from_the_path_with_its_query(autojump_clock: MockClock) -> None:
    venue = Venue()
    assert await fetcher(venue.host()).get("/depth?symbol=BTCUSDT&limit=1000") == b"1"
    [(_, request)] = venue.asked
    assert str(request.url) == "http://acme.test/root/depth?symbol=BTCUSDT&limit=1000"
    assert request.headers["x-key"] == "sesame"


async def test_symbols_of_any_script_are_escaped_once(autojump_clock: MockClock) -> None:
    venue = Venue()
    await fetcher(venue.host()).get("/depth?symbol=%E5%B8%81USDT&limit=5")
    assert venue.asked[0][1].url.params["symbol"] == "币USDT"


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), "name resolution fails"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "there is no route to them"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), ""),
    ],
)
async def test_whether_anybody_was_reached(error: OSError, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: object, **__: object) -> trio.SocketStream:
        raise error

    monkeypatch.setattr(trio, "open_tcp_stream", fails)
    host = Host("Acme", "http://acme.invalid/", timeout_s=1.0, user_agent="tickerd/1")
    with pytest.raises(VenueUnavailable, match=r"^Acme cannot be reached: ") as raised:
        await fetcher(host).get("/a")
    assert raised.value.unreached == why


@pytest.mark.parametrize(("connects", "why"), [(False, "connections are not answered"), (True, "")])
async def test_a_venue_that_is_silent_was_reached_and_one_that_is_not_there_was_not(
    connects: bool, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hangs(*_: object, **__: object) -> trio.SocketStream:
        await trio.sleep_forever()
        raise AssertionError

    if not connects:
        monkeypatch.setattr(trio, "open_tcp_stream", hangs)
    [silent] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with silent:
        port = silent.socket.getsockname()[1]
        host = Host("Acme", f"http://127.0.0.1:{port}/", timeout_s=0.3, user_agent="tickerd/1")
        with pytest.raises(VenueTimeout, match=r"^Acme did not answer within 0\.3 s$") as raised:
            await fetcher(host).get("/a")
    assert raised.value.unreached == why


async def test_one_is_asked_after_the_other(autojump_clock: MockClock) -> None:
    async def slow(_request: httpx.Request) -> httpx.Response:
        await trio.sleep(2)
        return httpx.Response(200, content=b"1")

    venue = Venue(slow)
    bodies = fetcher(venue.host())
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(bodies.get, "/a")
    assert venue.times == [0, 2, 4]


async def test_a_pause_that_the_venue_asks_for_is_kept_by_all_who_call_it(autojump_clock: MockClock) -> None:
    venue = Venue(lambda _: answers_with(429, retry_after="30"))
    host = venue.host()
    with pytest.raises(VenueThrottled) as first:
        await fetcher(host).get("/a")
    assert first.value.retry_after_s == 30
    with pytest.raises(VenueThrottled, match="asked for a pause"):
        await fetcher(host).get("/b")
    assert len(venue.asked) == 1
    assert host.gate.closed_s(passed_s()) == pytest.approx(30, abs=1)


async def test_a_refusal_is_no_pause_for_others(autojump_clock: MockClock) -> None:
    venue = Venue(lambda _: answers_with(403))
    host = venue.host()
    with pytest.raises(VenueRefused):
        await fetcher(host).get("/a")
    assert host.gate.closed_s(passed_s()) == 0


async def test_the_venues_budget_may_close_the_gate_behind_a_good_answer(autojump_clock: MockClock) -> None:
    venue = Venue()
    host = venue.host()
    assert await fetcher(host, Pause(20, "used up")).get("/a") == b"1"
    with pytest.raises(VenueThrottled, match="used up"):
        await fetcher(host).get("/a")


async def test_a_body_that_is_too_large_or_too_slow_is_an_error(autojump_clock: MockClock) -> None:
    async def large(_request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        return httpx.Response(200, content=b"x" * 2000)

    with pytest.raises(VenueUnavailable, match="a body of more than 1000 bytes"):
        await fetcher(Venue(large).host()).get("/a")

    async def never(_request: httpx.Request) -> httpx.Response:
        await trio.sleep_forever()
        raise AssertionError

    with pytest.raises(VenueUnavailable, match="did not answer within 8 s"):
        await fetcher(Venue(never).host()).get("/a")


async def test_no_more_than_so_many_are_asked_in_any_minute(autojump_clock: MockClock) -> None:
    venue = Venue()
    bodies = HostFetcher(venue.host(), explain=explain, now_ms=now_ms, per_minute=3)
    for _ in range(4):
        await bodies.get("/a")
    await trio.sleep(30)
    for _ in range(4):
        await bodies.get("/a")
    assert venue.times == [0, 0, 0, 60, 90, 90, 120, 150]


class Endless(httpx.AsyncByteStream):
    """A body that has no end, in pieces that nobody keeps."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await trio.lowlevel.checkpoint()
            yield bytes(65_536)


async def test_a_body_that_is_refused_is_let_go_at_once(autojump_clock: MockClock) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=Endless()))
    host = Host("Acme", "http://acme.test/", timeout_s=8.0, user_agent="tickerd/1", transport=transport)
    asking = fetcher(host, most_bytes=2_000_000)
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        for _ in range(3):
            with pytest.raises(VenueUnavailable, match="a body of more than 2000000 bytes"):
                await asking.get("/a")
        left, _peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert left < 1_000_000
