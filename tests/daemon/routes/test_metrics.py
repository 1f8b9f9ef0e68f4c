"""What `GET /metrics` says after traffic that is known, and what it never says."""

import email.utils
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
import trio.testing
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from connectors.backoff import Backoff
from connectors.base import (
    FAILURE_CAUSES,
    ConnectorError,
    Context,
    Event,
    FailureCause,
    PayloadError,
    ProxyUnavailable,
    StateChange,
    VenueClosed,
    VenueRefused,
    VenueThrottled,
    VenueTimeout,
    VenueUnavailable,
)
from connectors.metric import Histogram, Samples
from daemon.front.request import Request
from daemon.health.board import Verdict
from daemon.health.crosscheck import Tolerances
from daemon.health.watch import Watch
from daemon.host.usage import process_usage
from daemon.ingest.fleet import Fleet, RestartSettings
from daemon.ingest.supervisor import Intensity, Link, supervise
from daemon.routes import metrics as metrics_route
from daemon.routes.metrics import Metrics
from tests.daemon.ingest.uncounted import Uncounted
from tests.daemon.routes.scraping import Running, Scrape, running
from tests.daemon.serving import (
    CLOSE,
    SOON_S,
    Gateway,
    HandMade,
    handshake,
    open_gateway,
    price,
)

read_openmetrics: Callable[[str], Iterator[Metric]] = text_string_to_metric_families
"""prometheus_client's own strict reader, which has no annotations."""


class Watched:
    """A gateway, and the metrics of it."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.fleet = Fleet(gateway.inbox, gateway.clock)
        self.watch = Watch(
            board=gateway.board,
            newest=gateway.tape.payload,
            publish=gateway.sequencer.publish,
            unreadable=dict,
            note_unreadable=lambda connector, count: None,
            tolerances=Tolerances(),
        )
        self.metrics = Metrics("test")
        self.metrics.include(
            lambda samples: gateway.board.measure(samples, gateway.clock.now_ms()),
            self.fleet.measure,
            gateway.sequencer.measure,
            gateway.hub.measure,
            gateway.tape.measure,
            gateway.sessions.counts.measure,
            gateway.door.measure,
            lambda samples: gateway.ledger.measure(samples, gateway.clock.now_ms()),
            self.watch.measure,
        )

    def scrape(self) -> Scrape:
        response = self.metrics.answer(Request(method="GET", path="/metrics", peer="127.0.0.1"))
        assert response.status == 200
        return Scrape.of(response.body.decode())

    async def until(self, value: float, name: str, **labels: str) -> None:
        await eventually(lambda: self.scrape().value(name, **labels) == value)


async def eventually(so: Callable[[], bool]) -> None:
    """Wait until it is so."""
    with trio.fail_after(SOON_S):
        while True:
            if so():
                return
            await trio.sleep(0.01)


@asynccontextmanager
async def watched(write: Callable[[int, bytes], int] = os.write) -> AsyncIterator[Watched]:
    async with open_gateway(write=write) as gateway:
        yield Watched(gateway)


def hold_up(seconds: float) -> None:
    """Let nothing else happen in this process."""
    time.sleep(seconds)


def fresh(number: int = 1, *, age_s: float = 0.0, cached: bool = False) -> Event:
    """An event of `bitcoinprice` that came so long ago."""
    made = price(number)
    received_ms = int((time.time() - age_s) * 1000)
    return Event(made.channel, made.instrument, made.data, received_ms, made.price, cached=cached)


async def test_events_and_deliveries_are_counted_where_they_happen() -> None:
    async with watched() as here, await here.gateway.client() as one, await here.gateway.client() as two:
        for client in (one, two):
            await client.subscribe("bitcoinprice")
        before = here.scrape()
        for number in range(10):
            here.gateway.sequencer.publish([[fresh(number)]])
        here.gateway.sequencer.publish([[price(1, channel="ethprice")]])  # nobody takes it
        here.gateway.sequencer.publish([[Event("nobody", "", b"{}", 1)]])
        frames = 0
        for _ in range(10):
            frames += len(await one.payload()) + 4  # RFC 6455: 2 bytes, and 2 for a length of more than 125
            await two.payload()
        after = here.scrape()

        def grown(name: str, **labels: str) -> float:
            return after.value(name, **labels) - before.value(name, **labels)

        assert grown("tickerd_events_total") == 11
        assert grown("tickerd_events_refused_total") == 1
        assert grown("tickerd_deliveries_total") == 20
        assert grown("tickerd_delivered_bytes_total") == 2 * frames
        assert grown("tickerd_channel_events_total", channel="bitcoinprice") == 10
        assert grown("tickerd_channel_events_total", channel="ethprice") == 1
        assert grown("tickerd_tape_entries") == 11
        assert after.value("tickerd_tape_channel_entries", channel="ethprice") == 1
        assert after.value("tickerd_tape_channel_bytes", channel="bitcoinprice") > 10 * 100
        assert grown("tickerd_delivery_delay_seconds_count") == 10, "once per event, not once per client"
        assert grown("tickerd_gaps_total", cause="refused") == 1
        assert after.value("tickerd_gaps_open", cause="refused") == 1
        assert after.value("tickerd_clients", format="json") == 2


async def test_the_delay_is_counted_from_the_arrival_of_the_venues_bytes() -> None:
    async with watched() as here, await here.gateway.client() as client:
        await client.subscribe("bitcoinprice")
        here.gateway.sequencer.publish([[fresh(1), fresh(2, age_s=1.2), fresh(3, age_s=3600, cached=True)]])
        here.gateway.sequencer.publish([[fresh(4, age_s=-3600)]])  # the clock was set back
        scrape = here.scrape()
        assert scrape.value("tickerd_delivery_delay_seconds_count") == 3
        assert scrape.value("tickerd_delivery_delay_seconds_bucket", le="1.0") == 2
        assert scrape.value("tickerd_delivery_delay_seconds_bucket", le="2.5") == 3
        assert 1.2 <= scrape.value("tickerd_delivery_delay_seconds_sum") < 1.2 + SOON_S


async def test_the_turns_of_the_hub_say_how_many_events_they_took() -> None:
    async with watched() as here:
        before = here.scrape()
        await here.gateway.inbox.send([price(number) for number in range(5)])
        await here.until(before.value("tickerd_events_total") + 5, "tickerd_events_total")
        after = here.scrape()
        assert after.value("tickerd_batch_events_sum") == 5
        assert after.value("tickerd_batch_events_bucket", le="4.0") == 0
        assert after.value("tickerd_batch_events_bucket", le="8.0") == 1
        assert after.value("tickerd_turn_seconds_count") == 1
        assert after.value("tickerd_inbox_batches_max") == 16


async def test_a_client_that_is_behind_and_one_that_lags_are_counted() -> None:
    refusing = False

    def write(fd: int, data: bytes) -> int:
        if refusing:
            raise BlockingIOError
        return os.write(fd, data)

    async with watched(write=write) as here, await here.gateway.client() as client:
        await client.subscribe("bitcoinprice")
        before = here.scrape()
        refusing = True
        here.gateway.sequencer.publish([[price()]])
        scrape = here.scrape()
        assert scrape.value("tickerd_clients_behind") == 1
        assert scrape.value("tickerd_deliveries_total") == before.value("tickerd_deliveries_total")
        assert scrape.value("tickerd_delivered_bytes_total") == before.value("tickerd_delivered_bytes_total")
        here.gateway.sequencer.publish([[price(number) for number in range(here.gateway.tape.max_entries + 1)]])
        refusing = False
        await client.until("lagged")
        await here.until(0, "tickerd_clients_behind")
        scrape = here.scrape()
        assert scrape.value("tickerd_lagged_total") == 1
        assert scrape.value("tickerd_gaps_total", cause="lagged") == 1


async def test_what_is_sent_at_intervals_is_delivered_too() -> None:
    async with watched() as here, await here.gateway.client() as client:
        await client.say(type="subscribe", channels=["bitcoinprice"], interval_ms=50, snapshot=False)
        await client.until("status")
        before = here.scrape().value("tickerd_deliveries_total")
        for number in (1, 2):  # the first is served alone, the second with its group
            here.gateway.sequencer.publish([[price(number)]])
            await client.until("price_update")
            await here.until(before + number, "tickerd_deliveries_total")


async def test_closes_are_counted_by_code() -> None:
    async with watched() as here:

        async def closing(payload: bytes) -> None:
            async with await here.gateway.client() as client:
                await client.send(payload, CLOSE)
                await client.closed()

        await closing((1000).to_bytes(2, "big"))
        await closing((1000).to_bytes(2, "big"))
        await closing((3999).to_bytes(2, "big"))  # nothing to do with us: no label of its own
        await closing(b"")
        async with await here.gateway.client() as client:
            for _ in range(5):
                await client.send(b"nonsense")
            assert (await client.closed()).code == 1008
        client = await here.gateway.client()
        await client.stream.aclose()
        for code, count in {"1000": 2, "other": 1, "1005": 1, "1006": 1, "1008": 1, "1001": 0}.items():
            await here.until(count, "tickerd_closes_total", code=code)
        scrape = here.scrape()
        assert scrape.value("tickerd_clients", format="json") == 0
        assert scrape.value("tickerd_sessions_total", format="json") == 6
        assert scrape.value("tickerd_handshakes_failed_total") == 0


async def test_commands_and_their_errors_are_counted_by_code() -> None:
    async with watched() as here, await here.gateway.client() as client:
        await client.say(type="ping")
        await client.say(type="dance")
        await client.say(type="subscribe", channels=["bitcoinprice", "nowhere"])  # in part: an error all the same
        await client.say(type="subscribe", channels=[])
        await client.send(b"{")
        for _ in range(4):
            await client.until("error")
        scrape = here.scrape()
        assert scrape.value("tickerd_commands_total") == 5
        for code in ("unknown_type", "unknown_channel", "invalid_field", "malformed"):
            assert scrape.value("tickerd_command_errors_total", code=code) == 1
        assert scrape.value("tickerd_command_errors_total", code="rate_limited") == 0


async def test_an_opening_handshake_that_is_not_completed_is_no_session() -> None:
    async with watched() as here:
        sessions = here.gateway.sessions
        limits, sessions.limits = sessions.limits, msgspec.structs.replace(sessions.limits, handshake_s=0.0)
        stream = await here.gateway.dial()
        async with stream:
            await stream.send_all(handshake())
            await here.until(1, "tickerd_handshakes_failed_total")
        sessions.limits = limits
        scrape = here.scrape()
        assert scrape.value("tickerd_clients", format="json") == 0
        assert scrape.value("tickerd_sessions_total", format="json") == 0
        assert scrape.value("tickerd_closes_total", code="1006") == 0


async def test_refusals_are_counted_by_code() -> None:
    async with watched() as here:
        stream = await here.gateway.dial()
        async with stream:
            await stream.send_all(b"GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await stream.receive_some(4096)
        await here.until(1, "tickerd_refused_total", code="bad_request")
        assert here.scrape().value("tickerd_refused_total", code="full") == 0


async def test_staleness_shows() -> None:
    async with watched() as here:
        publish = here.gateway.sequencer.publish
        here.gateway.board.expect("bitcoinprice", 30.0)
        publish([StateChange("bitcoinprice", "live"), [fresh(age_s=61)]])
        publish([Verdict("bitcoinprice", "freshness", "stale", "no data for 61 s")])
        scrape = here.scrape()
        states = {
            labels["state"]: scrape.value("tickerd_channel_state", **labels)
            for labels in scrape.labels_of("tickerd_channel_state")
            if labels["channel"] == "bitcoinprice"
        }
        assert states == {"connecting": 0, "live": 0, "stale": 1, "reconnecting": 0, "down": 0}
        assert scrape.value("tickerd_connector_state", channel="bitcoinprice", state="live") == 1
        assert scrape.value("tickerd_channel_verdict", channel="bitcoinprice", source="freshness") == 1
        assert scrape.value("tickerd_channel_verdict", channel="bitcoinprice", source="crosscheck") == 0
        assert 61 <= scrape.value("tickerd_channel_age_seconds", channel="bitcoinprice") < 61 + SOON_S
        assert scrape.value("tickerd_channel_stale_after_seconds", channel="bitcoinprice") == 30
        assert {"channel": "ethprice"} not in [*scrape.labels_of("tickerd_channel_age_seconds")], "it never had data"
        assert scrape.value("tickerd_gaps_open", cause="stale") == 1


async def test_a_late_event_loop_shows() -> None:
    async with watched() as here, trio.open_nursery() as nursery:
        await nursery.start(here.watch.run)
        hold_up(0.6)
        await here.until(1, "tickerd_event_loop_lag_seconds_count")
        scrape = here.scrape()
        assert scrape.value("tickerd_event_loop_lag_seconds_bucket", le="0.25") == 0
        assert scrape.value("tickerd_event_loop_lag_seconds_sum") > 0.3
        assert scrape.value("tickerd_tasks") == trio.lowlevel.current_statistics().tasks_living
        nursery.cancel_scope.cancel()


def odd() -> ConnectorError:
    """What a connector's own class of error may say."""
    made = type("Odd", (ConnectorError,), {"cause": "a secret"})("odd")
    assert isinstance(made, ConnectorError)
    return made


class _Failing(Uncounted):
    """A connector that fails in one way after the other, and then runs."""

    name = "failing"
    channels = ("bitcoinprice",)

    def __init__(self, *errors: Exception | None) -> None:
        self._errors = [*errors]
        self.done = trio.Event()

    async def run(self, context: Context) -> None:
        if not self._errors:
            self.done.set()
            await trio.sleep_forever()
        error = self._errors.pop(0)
        if error is not None:
            raise error


async def test_connectors_that_begin_anew_are_counted_by_cause() -> None:
    async with watched() as here, trio.open_nursery() as nursery:
        connector = _Failing(
            *(VenueTimeout("no answer"), VenueTimeout("no answer"), VenueClosed("went"), VenueThrottled("a pause")),
            *(VenueUnavailable("503"), VenueRefused("451"), PayloadError("no JSON"), ConnectorError("so"), odd()),
            *(ProxyUnavailable("no proxy"), ExceptionGroup("", [VenueClosed("went")]), ValueError("a bug"), None),
        )
        await nursery.start(here.fleet.run)
        settings = RestartSettings(backoff_base_s=0.001, backoff_cap_s=0.001, breaker_after=100, breaker_s=0.001)
        here.fleet.start("venue", [connector], settings)
        with trio.fail_after(SOON_S):
            await connector.done.wait()
        scrape = here.scrape()
        found = {
            labels["cause"]: int(scrape.value("tickerd_connector_failures_total", **labels))
            for labels in scrape.labels_of("tickerd_connector_failures_total")
        }
        expected: dict[FailureCause, int] = dict.fromkeys(FAILURE_CAUSES, 1) | {"timeout": 2, "closed": 2, "other": 2}
        assert found == expected | {"internal": 2}
        nursery.cancel_scope.cancel()


async def test_a_supervisor_need_not_count() -> None:
    async with watched() as here, trio.open_nursery() as nursery:
        link = Link(here.gateway.inbox, here.gateway.clock)
        connector = _Failing(VenueClosed("went"))
        nursery.start_soon(supervise, connector, link, Backoff(0.001, 0.001, 1.0, 9, 1.0), Intensity(60, 300.0))
        with trio.fail_after(SOON_S):
            await connector.done.wait()
        nursery.cancel_scope.cancel()


# ---- a daemon, over HTTP -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("Accept: */*", "text/plain; version=0.0.4"),
        ("Accept: application/openmetrics-text", "application/openmetrics-text; version=1.0.0"),
        ("Accept: application/openmetrics-text; version=1.0.0;q=0.6,text/plain;q=0.4,*/*;q=0.1", "application/open"),
        ("Accept: application/openmetrics-text;q=0.2,text/plain;q=0.4", "text/plain"),
        ("Accept: application/openmetrics-text;q=0", "text/plain"),
        ("Accept: application/openmetrics-text; version=nonsense", "application/openmetrics-text; version=1.0.0"),
        ("Accept: text/plain;version=nonsense,application/openmetrics-text;q=0.9", "text/plain"),
    ],
)
async def test_the_format_is_what_the_client_takes(accept: str, kind: str) -> None:
    async with running() as daemon:
        head, body = await daemon.ask("\n".join(filter(None, ["GET /metrics HTTP/1.1", accept])))
        assert head.startswith("HTTP/1.1 200 ")
        assert f"\r\nContent-Type: {kind}" in head
        assert "nonsense" not in head
        if kind.startswith("application"):
            names = {family.name for family in read_openmetrics(body)}
        else:
            names = Scrape.of(body).names()
        assert {"tickerd_tasks", "tickerd_clients_behind"} <= names


async def test_they_are_taken_once_a_second_at_most_in_whatever_format(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_route, "FRESH_S", 1.0)
    asked = 0

    def measure(samples: Samples) -> None:
        nonlocal asked
        asked += 1
        samples.count("tickerd_asked", "How often.", asked)

    metrics = Metrics("test")
    metrics.include(measure)
    plain = Request(method="GET", path="/metrics", peer="127.0.0.1")
    other = msgspec.structs.replace(plain, headers=(("accept", "application/openmetrics-text"),))
    texts = [metrics.answer(each).body for _ in range(100) for each in (plain, other)]
    assert asked == 1
    assert len(set(texts)) == 2
    made = email.utils.parsedate_to_datetime(dict(metrics.answer(plain).headers)["Last-Modified"])
    assert abs(made.timestamp() - time.time()) < SOON_S
    await trio.sleep(0.99)
    assert metrics.answer(plain).body == texts[0]
    await trio.sleep(0.02)
    assert Scrape.of(metrics.answer(plain).body.decode()).value("tickerd_asked_total") == 2
    assert b"tickerd_asked_total 2" in metrics.answer(other).body


async def test_head_is_get_without_the_body() -> None:
    async with running() as daemon:
        head, body = await daemon.ask("HEAD /metrics HTTP/1.1")
        assert head.startswith("HTTP/1.1 200 ")
        assert body == ""
        head, _ = await daemon.ask("POST /metrics HTTP/1.1\nContent-Length: 0")
        assert head.startswith("HTTP/1.1 405 ")


async def test_two_daemons_in_one_process_count_for_themselves() -> None:
    async with running() as one, running() as two:
        for _ in range(3):
            await one.ask("GET /healthz HTTP/1.1")
        assert (await one.scrape()).value("tickerd_requests_total") == 4
        assert (await two.scrape()).value("tickerd_requests_total") == 1


async def test_whatever_clients_send_makes_no_new_series() -> None:
    # With a limit that lets one client try all it likes.
    async with running(
        "[limits]\nerrors_in_a_row = 1000000\nerrors_burst = 1000000\n"
        "commands_per_s = 100000\ncommands_burst = 100000\n"
    ) as daemon:
        before = await daemon.scrape()
        await _be_odd(daemon, 1000)
        after = await daemon.scrape()
        assert {series for series in after if not _is_of_channels(series[0])} == {
            series for series in before if not _is_of_channels(series[0])
        }
        channels = {dict(labels)["channel"] for name, labels in after if name == "tickerd_channel_state"}
        of_channels = {dict(labels)["channel"] for name, labels in after if _is_of_channels(name)}
        assert of_channels <= {*channels, "!"}
        assert after.value("tickerd_refused_total", code="not_found") == 1000
        assert after.value("tickerd_command_errors_total", code="unknown_channel") == 500
        assert after.value("tickerd_command_errors_total", code="unknown_type") == 500


def _is_of_channels(name: str) -> bool:
    """Whether a channel has this series only once it has said something, which it may do at any time."""
    return "age_seconds" in name or name.startswith("tickerd_tape_channel")


async def _be_odd(daemon: Running, times: int) -> None:
    with trio.fail_after(6 * SOON_S):
        async with await trio.open_tcp_stream("127.0.0.1", daemon.port) as stream:
            for number in range(times):
                await stream.send_all(f"GET /odd-{number}?q={number} HTTP/1.1\r\nHost: h-{number}\r\n\r\n".encode())
                received = b""
                while b'"type":"error"' not in received:
                    received += await stream.receive_some(4096)
        stream = await trio.open_tcp_stream("127.0.0.1", daemon.port)
        await stream.send_all(handshake())
        received = b""
        while b"\r\n\r\n" not in received:
            received += await stream.receive_some(4096)
        async with HandMade(stream, received.partition(b"\r\n\r\n")[2]) as client:
            for number in range(times // 2):
                await client.say(type="subscribe", channels=[f"odd-{number}"], id=f"id-{number}")
                await client.say(type=f"odd-{number}")
                await client.until("error")
                await client.until("error")


async def test_no_secret_and_no_address_is_told() -> None:
    key, token = "CG-qwertyuiopasdfghjkl", "tick-zxcvbnm1234567890"
    digest = "sha256:" + "5e" * 32
    text = f"""
        [tokens.partner]
        hash = "{digest}"
        [connectors.okx]
        url = "ws://127.0.0.1:1"
        [connectors.binance]
        base_url = "http://127.0.0.1:1"
        [connectors.coingecko]
        base_url = "http://127.0.0.1:1"
        plan = "demo"
        api_key = "{key}"
    """
    async with running(text) as daemon:
        for request in (
            f"GET /events?channels=ethprice&token={token} HTTP/1.1",
            f"GET /snapshot/ethprice HTTP/1.1\nAuthorization: Bearer {token}",
            f"GET /{token} HTTP/1.1",
        ):
            head, _ = await daemon.ask(request)
            assert head.startswith("HTTP/1.1 4"), head
        await trio.sleep(0.1)
        head, body = await daemon.ask("GET /metrics HTTP/1.1")
        assert head.startswith("HTTP/1.1 200 "), "whoever watches over the daemon is no client of it"
        assert Scrape.of(body).value("tickerd_refused_total", code="unauthorized") == 2
        for secret in (key, token, digest, "5e5e5e", "partner", "127.0.0.1", "[::1]"):
            assert secret not in body


# ---- the parts ------------------------------------------------------------------------------------------------------


def test_a_histogram_counts_each_value_in_its_bucket() -> None:
    histogram = Histogram((1.0, 2.0, 4.0))
    for value, times in ((0.5, 1), (1.0, 2), (1.5, 1), (4.0, 1), (4.5, 3)):
        histogram.add(value, times)
    assert [*histogram.cumulative()] == [3, 4, 5, 8]
    assert histogram.count == 8
    assert histogram.sum == 0.5 + 2.0 + 1.5 + 4.0 + 13.5
    for bounds in ((2.0, 1.0), (1.0, 1.0)):
        with pytest.raises(ValueError, match="must rise"):
            Histogram(bounds)


def test_the_process_knows_what_it_costs() -> None:
    before = process_usage()
    assert before.cpu_s > 0
    assert before.resident_bytes is None or before.resident_bytes > 5_000_000
    assert before.most_files > 0
    if before.open_files is None:
        pytest.skip("this kernel does not say how many files are open")
    with open(os.devnull, "rb"), open(os.devnull, "rb"):
        assert process_usage().open_files == before.open_files + 2
