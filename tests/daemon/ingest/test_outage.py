"""`daemon.ingest.outage`: one line where no exchange can be reached, and no line lost where one of them can."""

import logging

import pytest
import trio
import trio.testing

from daemon.ingest.outage import Outage

DNS = "name resolution fails"
EVERYWHERE = (
    "no exchange can be reached: name resolution fails; check DNS, firewall, proxy; "
    "each connector tries again by itself, and says no more of this (okx: okx 1)"
)


@pytest.fixture(autouse=True)
def _everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


def _told(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    """What the log has said since the last time."""
    said = [record.getMessage() for record in caplog.records if record.levelno >= level]
    caplog.clear()
    return said


async def test_once_all_venues_have_failed_one_line_says_so(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    outage = Outage(lambda: 3)
    for name in ("binance", "binance-instruments", "coingecko"):
        outage.failed(name.partition("-")[0], name, DNS, f"{name} 1", 0.5)
    assert (_told(caplog), outage.words) == ([], "")
    outage.failed("okx", "okx", DNS, "okx 1", 0.5)
    assert _told(caplog) == [EVERYWHERE]
    for attempt in range(20):
        await trio.sleep(10)
        outage.failed("coingecko", "coingecko", "there is no route to them", f"coingecko {attempt}", 60)
    assert _told(caplog, logging.DEBUG) == [f"coingecko: coingecko {attempt}" for attempt in range(20)]
    assert outage.words == (
        "no exchange can be reached: name resolution fails, there is no route to them; check DNS, firewall, proxy"
    )


async def test_it_is_over_with_the_next_data_and_may_come_again(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    outage = Outage(lambda: 2)
    for name in ("binance", "okx"):
        outage.failed(name, name, DNS, f"{name} 1", 0.5)
    _told(caplog)
    outage.heard += 1
    assert outage.words == ""
    outage.reached()
    outage.reached()
    assert _told(caplog) == ["exchanges can be reached again"]
    outage.failed("okx", "okx", DNS, "okx 2", 0.5)
    assert _told(caplog) == ["okx: okx 2"], "the other venue is well"
    for _ in range(20):
        await trio.sleep(1)
        outage.failed("okx", "okx", DNS, "okx", 1.0)
        outage.failed("binance", "binance", DNS, "binance", 1.0)
    said = _told(caplog)
    assert len(said) == 1, "now nobody has heard of any venue for a while"
    assert said[0].startswith("no exchange can be reached: ")


async def test_a_venue_that_is_not_heard_of_for_long_is_not_waited_for(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    outage = Outage(lambda: 3)
    for second in range(16):
        outage.failed("okx", "okx", DNS, f"okx {second}", 1.0)
        outage.failed("binance", "binance", DNS, f"binance {second}", 1.0)
        await trio.sleep(1)
    [line] = _told(caplog)
    assert line.startswith("no exchange can be reached: ")


async def test_where_others_are_well_each_line_is_told_at_once(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    outage = Outage(lambda: 3)
    outage.heard = 5
    for attempt in range(5):
        outage.failed("okx", "okx", DNS, f"okx {attempt}", 1.0)
        await trio.sleep(1)
        outage.heard += 1
    assert _told(caplog, logging.DEBUG) == [f"okx: okx {attempt}" for attempt in range(5)]
    assert outage.words == ""


async def test_what_is_held_back_is_told_when_something_else_goes_wrong(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage(lambda: 3)
    outage.failed("okx", "okx", DNS, "okx 1", 0.5)
    assert _told(caplog, logging.DEBUG) == []
    outage.failed("binance", "binance", "", "HTTP 451", 100.0)
    assert _told(caplog) == ["okx: okx 1", "binance: HTTP 451"]


async def test_nothing_is_held_back_for_long(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    outage = Outage(lambda: 3)
    outage.failed("okx", "okx", DNS, "okx 1", 120.0)
    assert _told(caplog) == ["okx: okx 1"]
    for attempt in range(2, 22):
        await trio.sleep(1)
        outage.failed("okx", "okx", DNS, f"okx {attempt}", 1.0)
    said = _told(caplog)
    assert said[0] == "okx: okx 16", "the newest of the first fifteen seconds"
    assert said[1:] == [f"okx: okx {attempt}" for attempt in range(17, 22)]


async def test_a_different_failure_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage(lambda: 2)
    for name in ("binance", "okx"):
        outage.failed(name, name, DNS, f"{name} 1", 0.5)
    _told(caplog)
    outage.failed("okx", "okx", "", "okx sent nothing", 0.5)
    assert _told(caplog) == ["exchanges can be reached again", "okx: okx sent nothing"]
    assert outage.words == ""


async def test_a_connection_that_was_open_and_dies_is_no_sign_of_a_network(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage(lambda: 2)
    for name in ("binance", "okx"):
        outage.failed(name, name, DNS, f"{name} 1", 0.5)
    _told(caplog)
    outage.failed("okx", "okx-2", "", "okx sent nothing", 0.5, "timeout")
    assert _told(caplog) == ["okx-2: okx sent nothing"]
    assert outage.words != ""


async def test_the_only_venue_is_all_venues(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage()
    outage.failed("okx", "okx", DNS, "okx 1", 0.5)
    assert _told(caplog) == [EVERYWHERE]
    outage.forget("binance")
    assert outage.words != ""
    outage.forget("okx")
    assert outage.words == ""
