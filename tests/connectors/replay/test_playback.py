"""A recording played: in the order of its times; what is missing is told; a seek finds what it needs."""

from pathlib import Path

import pytest

from connectors.base import StateChange
from connectors.capture.journal import HOUR_MS
from connectors.capture.lines import Exchange, Lost
from connectors.capture.reading import RecordedFile, RecordingError
from connectors.replay.playback import BREAKS_OFF, Source
from protocol.fields import SnapshotFields
from tests.connectors.replay.made import (
    BEGAN_MS,
    channel,
    events,
    header,
    line,
    played,
    record,
    ticker,
    told,
)

TICKERS = channel("bitcoinprice", "okx", "ticker")
BOOKS = [channel("okx_depth", "okx", "depth"), channel("okx_book", "okx", "book", every_ms=100, levels=2)]
PRICES = channel("binance_prices", "binance", "prices", cadence_s=10.0)
CLOSED = "OKX dropped the connection"


def tickers(*ats: tuple[int, str]) -> list[object]:
    return [line(at, frame=ticker(last, at)) for at, last in ats]


def test_one_connection_from_its_opening_to_its_end(tmp_path: Path) -> None:
    record(
        tmp_path,
        header("okx", [TICKERS]),
        [
            line(0, opened="ws.okx.com/ws/v5/public"),
            line(1, sent='{"op":"subscribe"}'),
            line(10, frame=ticker("42150.50", 10)),
            line(20, frame="pong"),
            line(30, frame=ticker("42150.60", 30)),
            line(40, closed=CLOSED),
            line(50, opened="ws.okx.com/ws/v5/public", conn=2),
            line(60, frame=ticker("42150.7", 60), conn=2),
        ],
    )
    assert told(played(tmp_path)) == [
        (0, "bitcoinprice connecting"),
        (10, "bitcoinprice live"),
        (10, "bitcoinprice=42150.50"),
        (30, "bitcoinprice=42150.60"),
        (40, f"bitcoinprice reconnecting: {CLOSED}"),
        (50, "bitcoinprice connecting"),
        (60, "bitcoinprice live"),
        (60, "bitcoinprice=42150.7"),
        (60, "bitcoinprice down: nothing was recorded: the daemon is stopping"),
    ]
    event = events(played(tmp_path))[0]
    assert (event.received_ms, event.exchange_ms) == (BEGAN_MS + 10, BEGAN_MS + 10)


def test_connections_are_merged_by_the_time_of_receipt(tmp_path: Path) -> None:
    eth = channel("ethprice", "okx", "ticker", "ETH/USDT")
    record(tmp_path, header("okx", [TICKERS]), [line(at, frame=ticker(f"1.{at:02}", at)) for at in range(0, 40, 2)])
    (tmp_path / "kraken.jsonl").write_bytes(b"")  # something else that lies there
    other = '{"stream":"btcusdt@trade","data":{"e":"trade","E":1765211445101,"s":"BTCUSDT","t":%d,"p":"2.%02d",'
    other += '"q":"1","T":1765211445101,"m":false,"M":true}}'
    trades = channel("binance_trades", "binance", "trades")
    record(
        tmp_path,
        header("binance-streams", [trades]),
        [line(at, frame=other % (at + 1, at)) for at in range(1, 40, 2)],
    )
    times = [at for at, what in told(played(tmp_path)) if "=" in what]
    assert times == list(range(40))
    assert eth.name not in str(told(played(tmp_path)))


def test_another_connection_takes_over_and_each_event_comes_once(tmp_path: Path) -> None:
    lines = [line(0, opened="a"), *tickers((10, "1.0"), (20, "2.0"))]
    lines += [line(25, opened="a", conn=2)]
    for at, last in ((30, "3.0"), (40, "4.0"), (50, "5.0")):
        lines += [line(at, frame=ticker(last, at)), line(at + 2, frame=ticker(last, at), conn=2)]
    lines += [line(60, closed="closed by the daemon"), line(70, frame=ticker("6.0", 70), conn=2)]
    record(tmp_path, header("okx", [TICKERS]), lines)  # type: ignore[arg-type] # lines
    said = told(played(tmp_path))
    assert [what for _, what in said if "=" in what] == [f"bitcoinprice={n}.0" for n in range(1, 7)]
    assert not [what for _, what in said if "reconnecting" in what]


def test_frames_that_were_lost_are_missing_where_they_were(tmp_path: Path) -> None:
    lost = Lost(12, 4711, BEGAN_MS + 20, BEGAN_MS + 90, "the disk was too slow")
    lines = [*tickers((10, "1.0")), line(90, lost=lost), *tickers((100, "2.0"))]
    record(tmp_path, header("okx", [TICKERS]), lines)  # type: ignore[arg-type] # lines
    assert (90, "missing 12 of bitcoinprice: the disk was too slow") in told(played(tmp_path))


def test_the_time_between_two_runs_is_missing_and_the_channels_are_down(tmp_path: Path) -> None:
    record(tmp_path, header("okx", [TICKERS], run=1), tickers((10, "1.0")))  # type: ignore[arg-type] # lines
    record(tmp_path, header("okx", [TICKERS], run=2), tickers((5000, "2.0")), killed=True)  # type: ignore[arg-type]
    record(tmp_path, header("okx", [TICKERS], run=3), tickers((9000, "3.0")))  # type: ignore[arg-type] # lines
    assert told(played(tmp_path)) == [
        (10, "bitcoinprice live"),
        (10, "bitcoinprice=1.0"),
        (10, "bitcoinprice down: nothing was recorded: the daemon is stopping"),
        (5000, "missing 0 of bitcoinprice: the daemon is stopping"),
        (5000, "bitcoinprice live"),
        (5000, "bitcoinprice=2.0"),
        (5000, f"bitcoinprice down: nothing was recorded: {BREAKS_OFF}"),
        (9000, f"missing 0 of bitcoinprice: {BREAKS_OFF}"),
        (9000, "bitcoinprice live"),
        (9000, "bitcoinprice=3.0"),
        (9000, "bitcoinprice down: nothing was recorded: the daemon is stopping"),
    ]


def test_hours_of_one_run_are_one_piece(tmp_path: Path) -> None:
    ats = [(hour * HOUR_MS + 7, f"{hour}.5") for hour in range(4)]
    record(tmp_path, header("okx", [TICKERS]), tickers(*ats))  # type: ignore[arg-type] # lines
    said = told(played(tmp_path))
    assert [what for _, what in said if "=" in what] == [f"bitcoinprice={hour}.5" for hour in range(4)]
    assert not [what for _, what in said if "missing" in what]


def book(action: str, seq: int, before: int, bid: str, after_ms: int) -> str:
    """OKX's `books`, without a checksum, as OKX no longer has one."""
    return (
        f'{{"arg":{{"channel":"books","instId":"BTC-USDT"}},"action":"{action}","data":[{{"checksum":0,'
        f'"asks":[["101","1","0","1"]],"bids":[["{bid}","1","0","1"]],"ts":"{BEGAN_MS + after_ms}",'
        f'"seqId":{seq},"prevSeqId":{before}}}]}}'
    )


def books(folder: Path, hours: int = 3) -> None:
    """A book that changes every ten minutes, on a connection that was opened at the beginning."""
    lines = [line(0, opened="a"), line(1, frame=book("snapshot", 1, -1, "100", 1))]
    for number in range(1, hours * 6):
        at = number * 600_000
        lines.append(line(at, frame=book("update", number + 1, number, f"100.{number:02}", at)))
    record(folder, header("okx", BOOKS), lines)


def test_what_a_book_has_to_say_by_itself_comes_when_it_is_due(tmp_path: Path) -> None:
    lines = [line(0, opened="a"), line(1, frame=book("snapshot", 1, -1, "100", 1))]
    lines += [line(21, frame=book("update", 2, 1, "100.5", 21)), line(500, frame="pong")]
    record(tmp_path, header("okx", BOOKS), lines)
    assert [at for at, what in told(played(tmp_path)) if "okx_book=" in what] == [1, 101]


def test_who_begins_in_the_middle_has_the_whole_book_and_nothing_of_before(tmp_path: Path) -> None:
    books(tmp_path)
    from_ms = BEGAN_MS + 2 * HOUR_MS + 5
    items = played(tmp_path, from_ms)
    assert all(at >= from_ms for at, _ in items)
    first, *others = events(items, "okx_depth")
    assert isinstance(first.fields, SnapshotFields)
    assert bytes(first.fields.bids).count(b"[") - 1 == 13
    whole = [event for event in events(played(tmp_path), "okx_depth") if event.received_ms > from_ms]
    assert others == whole
    assert ("okx_depth live") in [what for _, what in told(items)[:4]]


def test_a_seek_heeds_which_connection_had_the_book(tmp_path: Path) -> None:
    lines = [line(0, opened="a"), line(1, frame=book("snapshot", 1, -1, "100", 1))]
    for number in range(1, 12):
        at = number * 600_000
        lines.append(line(at, frame=book("update", number + 1, number, f"100.{number:02}", at)))
        if number == 5:
            # One that was to take over, and did not.
            lines += [line(at + 10, conn=2, opened="b"), line(at + 500, conn=2, closed="OKX dropped the connection")]
    record(tmp_path, header("okx", BOOKS), lines)
    first = events(played(tmp_path, BEGAN_MS + 10 * 600_000 + 5), "okx_depth")[0]
    assert isinstance(first.fields, SnapshotFields)
    assert bytes(first.fields.bids).count(b'"100') == 11


def test_a_seek_does_not_read_what_it_does_not_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ats = [(minute * 60_000, f"{minute + 1}") for minute in range(240)]
    record(tmp_path, header("okx", [TICKERS]), [line(0, opened="a"), *tickers(*ats)])  # type: ignore[list-item]
    read: list[int] = []
    lines = RecordedFile.lines

    def counted(file: RecordedFile, piece: int = 0) -> object:
        for part in lines(file, piece):
            read.append(len(part))
            yield part

    monkeypatch.setattr(RecordedFile, "lines", counted)
    items = played(tmp_path, BEGAN_MS + 238 * 60_000)
    assert [event.price for event in events(items)] == ["239", "240"]
    assert sum(read) < 20


def test_it_ends_where_it_is_to_end(tmp_path: Path) -> None:
    record(tmp_path, header("okx", [TICKERS]), tickers(*((at, f"{at + 1}") for at in range(10))))  # type: ignore[arg-type]
    assert [event.price for event in events(played(tmp_path, to_ms=BEGAN_MS + 4))] == ["1", "2", "3", "4", "5"]


def test_a_clock_that_was_set_back_does_not_turn_the_time(tmp_path: Path) -> None:
    lines = tickers((50, "1"), (60, "2"), (20, "3"), (70, "4"))
    record(tmp_path, header("okx", [TICKERS]), lines)  # type: ignore[arg-type] # lines
    times = [at for at, _ in told(played(tmp_path))]
    assert times == sorted(times)


ROW = '{"symbol":"BTCUSDT","lastPrice":"42150.50","priceChangePercent":"2.45","closeTime":%d}'


def exchange(url: str, after_ms: int, **more: object) -> Exchange:
    body = f"[{ROW % (BEGAN_MS + after_ms)}]"
    return Exchange("GET", url, **{"status": 200, "body": body} | more)  # type: ignore[arg-type] # of any type


def test_a_poll_is_given_the_answers_that_were_recorded(tmp_path: Path) -> None:
    head = header("binance_prices", [PRICES])
    record(tmp_path, head, [line(0, tick=True)])
    # What it asks is the venue's own affair: see it.
    from connectors.poll.poller import Poller
    from connectors.venues.registry import VENUES

    (poller,) = VENUES["binance"].build([PRICES], VENUES["binance"].settings(), "test")
    assert isinstance(poller, Poller)
    request = poller.ticks.begin(0.0, 0.0).next()
    assert request is not None
    folder = tmp_path / "again"
    folder.mkdir()
    record(
        folder,
        head,
        [
            line(0, tick=True),
            line(90, http=exchange(request.url, 90)),
            line(10_000, tick=True),
            line(10_100, http=exchange(request.url, 10_100, status=503, body="no")),
            line(20_000, tick=True),
            line(20_050, http=Exchange("GET", request.url, reason="Binance did not answer within 10 s")),
            line(30_000, tick=True),
            line(30_001, http=exchange("/another", 30_001)),
            line(40_000, tick=True),
            line(40_100, http=exchange(request.url, 40_100)),
        ],
    )
    assert told(played(folder))[:-1] == [
        (0, "binance_prices connecting"),
        (90, "binance_prices live"),
        (90, "binance_prices=42150.50"),
        (10_100, "binance_prices reconnecting: Binance is in trouble (HTTP 503)"),
        (20_050, "binance_prices reconnecting: Binance did not answer within 10 s"),
        (40_100, "binance_prices live"),
        (40_100, "binance_prices=42150.50"),
    ]


def test_a_venue_that_is_not_known_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(
        b'{"recv_ts":1.0,"record":{"format":1,"venue":"mtgox","connector":"mtgox"}}\n{"recv_ts":2.0,"frame":"{}"}\n'
    )
    with pytest.raises(RecordingError, match=r"a\.jsonl: a recording of 'mtgox'; known venues are binance, okx"):
        played(tmp_path)


def test_the_channels_are_those_that_were_configured_with_all_instruments_they_ever_had(tmp_path: Path) -> None:
    more = channel("bitcoinprice", "okx", "ticker", "ETH/USDT", stale_after_s=7.0)
    record(tmp_path, header("okx", [TICKERS], run=1), tickers((10, "1.0")))  # type: ignore[arg-type] # lines
    record(tmp_path, header("okx", [more], run=2), tickers((20, "1.0")))  # type: ignore[arg-type] # lines
    (one,) = Source(tmp_path).channels()
    assert (one.instruments, one.stale_after_s) == (("BTC/USDT", "ETH/USDT"), 7.0)
    assert isinstance(played(tmp_path)[0][1], StateChange)
