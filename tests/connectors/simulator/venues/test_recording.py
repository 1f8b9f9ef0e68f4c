"""Recorded payloads: what fits which request, the capture's pace, and errors of a folder."""

import json
from pathlib import Path

import httpx
import msgspec
import pytest
import trio
import trio.testing
import trio_websocket

from connectors.simulator.http.request import VenueRequest, VenueResponse
from connectors.simulator.simulator import Simulator
from connectors.simulator.venues.recording import Recording, RecordingError


def push(instrument: str, last: str) -> str:
    arg = {"channel": "tickers", "instId": instrument}
    return json.dumps({"arg": arg, "data": [{"instId": instrument, "last": last}]})


def capture(*rows: tuple[float, str]) -> str:
    return "\n".join(json.dumps({"recv_ts": at, "frame": frame}) for at, frame in rows)


CAPTURE = capture(
    (100.0, '{"event":"subscribe","arg":{"channel":"tickers","instId":"BTC-USDT"}}'),
    (100.5, push("BTC-USDT", "1.10")),
    (100.6, '{"arg":{"channel":"books","instId":"BTC-USDT"},"data":[]}'),
    (100.6, "pong"),
    (100.7, push("ETH-USDT", "2")),
    (101.5, push("BTC-USDT", "1.20")),
    (102.0, '{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[]}'),
)
FILES = {
    "okx_ws_any_2022-05-13.jsonl": CAPTURE,
    "binance_rest_ticker24hr_BTCUSDT_2020-04-15.json": '{ "symbol":"BTCUSDT","closeTime":1}',
    "binance_rest_ticker24hr_pair.json": ('[{"symbol":"BTCUSDT", "closeTime":2}, {"symbol":"ETHUSDT","closeTime":2}]'),
    "binance_rest_ticker24hr_list.json": '[{"symbol":"A"},{"symbol":"B"},{"symbol":"C"}]  ',
    "binance_rest_depth_BTCUSDT.json": '{"lastUpdateId":1,"bids":[],"asks":[]}',
    "coingecko_global_2021.json": '{"data":{"markets":1}}',
    "coingecko_trending_2021.json": '{"coins":[]}',
    "coingecko_markets_bitcoin_2021.json": '[{"id":"old"}]',
    "coingecko_markets_bitcoin_2024.json": '[ {"id":"bitcoin"}]',
    "coingecko_markets_btc_in_eth_2021.json": '[{"id":"in_eth"}]',
    "okx_rest_instruments_spot.json": '{"code":"0","data":[]}',
    "binance_rest_exchangeInfo_1.json": '{"symbols":[{"symbol":"BTCUSDT"}]}',
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def binance(recording: Recording, target: str) -> bytes:
    return recording.binance(VenueRequest("GET", "/api/v3/" + target)).body


def test_tickers_are_served_byte_for_byte_by_what_was_asked(folder: Path) -> None:
    recording = Recording.load(folder)

    alone = binance(recording, "ticker/24hr?symbol=BTCUSDT")
    assert alone.decode() == FILES["binance_rest_ticker24hr_BTCUSDT_2020-04-15.json"]
    pair = binance(recording, 'ticker/24hr?symbols=["ETHUSDT","BTCUSDT"]')
    assert pair.decode() == FILES["binance_rest_ticker24hr_pair.json"]
    everything = binance(recording, "ticker/24hr")
    assert everything.decode() == FILES["binance_rest_ticker24hr_pair.json"]
    parts = binance(recording, 'ticker/24hr?symbols=["ETHUSDT","A"]')
    assert parts == b'[{"symbol":"ETHUSDT","closeTime":2},{"symbol":"A"}]'
    later = binance(recording, 'ticker/24hr?symbols=["BTCUSDT"]')
    assert later == b'[{"symbol":"BTCUSDT", "closeTime":2}]'


@pytest.mark.parametrize(
    "target",
    [
        "ticker/24hr?symbol=XRPUSDT",
        'ticker/24hr?symbols=["BTCUSDT","XRPUSDT"]',
        "depth?symbol=ETHUSDT",
        'exchangeInfo?symbols=["ETHUSDT"]',
    ],
)
def test_what_was_not_recorded_is_an_invalid_symbol(folder: Path, target: str) -> None:
    response = Recording.load(folder).binance(VenueRequest("GET", "/api/v3/" + target))

    assert response.status == 400
    assert json.loads(response.body) == {"code": -1121, "msg": "Invalid symbol."}


def test_other_bodies(folder: Path) -> None:
    recording = Recording.load(folder)

    assert binance(recording, "depth?symbol=BTCUSDT&limit=20").startswith(b'{"lastUpdateId":1')
    assert binance(recording, "exchangeInfo").startswith(b'{"symbols"')
    assert binance(recording, "exchangeInfo?symbol=BTCUSDT").startswith(b'{"symbols"')
    assert b"-1100" in binance(recording, "depth?symbol=btcusdt")
    assert recording.binance(VenueRequest("GET", "/api/v3/time")).status == 404

    def coingecko(target: str, **headers: str) -> VenueResponse:
        return recording.coingecko(VenueRequest("GET", "/api/v3/" + target, headers))

    assert coingecko("global").body == b'{"data":{"markets":1}}'
    assert coingecko("search/trending").body == b'{"coins":[]}'
    markets = coingecko("coins/markets?vs_currency=usd&per_page=100")
    assert markets.body == b'[ {"id":"bitcoin"}]'
    tag = dict(markets.headers)["etag"]
    again = coingecko("coins/markets?vs_currency=usd", **{"if-none-match": tag})
    assert (again.status, again.body) == (304, b"")
    assert coingecko("coins/markets?vs_currency=eth").body == b'[{"id":"in_eth"}]'
    assert coingecko("coins/markets?vs_currency=gbp").status == 400
    missing = coingecko("coins/markets")
    assert missing.status == 422
    assert json.loads(missing.body) == {"error": "Missing parameter vs_currency"}

    assert recording.okx(VenueRequest("GET", "/api/v5/public/instruments?instType=SPOT")).status == 200
    assert recording.okx(VenueRequest("GET", "/api/v5/public/time")).status == 404


def test_the_capture_keeps_pace_order_and_bytes(folder: Path) -> None:
    recording = Recording.load(folder)

    offsets = [frame.offset_s for frame in recording.frames]
    assert offsets == pytest.approx([0, 0.2, 1.0])
    assert [frame.payload.decode() for frame in recording.frames] == [
        push("BTC-USDT", "1.10"),
        push("ETH-USDT", "2"),
        push("BTC-USDT", "1.20"),
    ]
    assert recording.loop_s == pytest.approx(2.0)
    assert recording.instruments == {"BTC-USDT", "ETH-USDT"}


@pytest.mark.parametrize(
    "missing",
    [
        "okx_ws_any_2022-05-13.jsonl",
        "binance_rest_depth_BTCUSDT.json",
        "coingecko_global_2021.json",
        "coingecko_trending_2021.json",
    ],
)
def test_a_missing_file_is_named_with_what_is_expected(folder: Path, missing: str) -> None:
    (folder / missing).unlink()

    with pytest.raises(RecordingError, match=rf"{missing.split('_')[0]}_.*: not found; expected "):
        Recording.load(folder)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("okx_ws_any_2022-05-13.jsonl", '{"frame":"{}"}', "line 1: .*recv_ts.*; expected a line"),
        ("okx_ws_any_2022-05-13.jsonl", capture((1, "pong")), "no push of the tickers channel"),
        ("okx_ws_any_2022-05-13.jsonl", capture((1, "{nonsense")), "line 1"),
        ("coingecko_global_2021.json", "[1]", "Expected `object`.*expected the body of"),
        ("binance_rest_ticker24hr_pair.json", "{", "expected a 24 h ticker"),
        ("coingecko_trending_2021.json", "\udcff", "trending"),
    ],
)
def test_an_unusable_file_is_named_with_what_is_wrong(folder: Path, name: str, text: str, says: str) -> None:
    (folder / name).write_bytes(text.encode(errors="surrogateescape"))

    with pytest.raises(RecordingError, match=says) as caught:
        Recording.load(folder)

    assert str(folder / name) in str(caught.value)


def test_a_folder_that_is_none_and_a_file_that_cannot_be_read(folder: Path) -> None:
    with pytest.raises(RecordingError, match="not a folder"):
        Recording.load(folder / "nowhere")

    (folder / "coingecko_global_2021.json").unlink()
    (folder / "coingecko_global_2021.json").mkdir()
    with pytest.raises(RecordingError, match=r"coingecko_global_2021\.json: cannot be read"):
        Recording.load(folder)


async def play(recording: Recording, nursery: trio.Nursery, *instruments: str) -> list[tuple[float, str | bytes]]:
    """Subscribe at a simulator with this recording; the first four frames with their times."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    await nursery.start(Simulator(recording=recording).run, listeners)
    port = listeners[0].socket.getsockname()[1]
    args = [{"channel": "tickers", "instId": instrument} for instrument in instruments]
    frames: list[tuple[float, str | bytes]] = []
    url = f"ws://127.0.0.1:{port}/ws/v5/public"
    async with trio_websocket.open_websocket_url(url) as client:
        await client.send_message(json.dumps({"op": "subscribe", "args": args}))
        for arg in args:
            assert json.loads(await client.get_message())["arg"] == arg
        while len(frames) < 4:
            frame = await client.get_message()
            frames.append((trio.current_time(), frame))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            book = await http.get("/api/v3/depth", params={"symbol": "BTCUSDT"})
            assert book.headers["x-mbx-used-weight-1m"] == "5"
            assert book.status_code == 200
    nursery.cancel_scope.cancel()
    return frames


async def test_a_subscriber_gets_its_instruments_frames_again_and_again(
    folder: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.05  # what is under way over loopback arrives before the clock jumps
    text = capture((0.0, push("BTC-USDT", "1")), (0.1, push("ETH-USDT", "9")), (0.2, push("BTC-USDT", "2")))
    (folder / "okx_ws_any_2022-05-13.jsonl").write_text(text)

    with trio.fail_after(5):
        frames = await play(Recording.load(folder), nursery, "BTC-USDT")

    wanted = [push("BTC-USDT", "1"), push("BTC-USDT", "2")] * 2
    assert [frame for _, frame in frames] == wanted
    times = [at - frames[0][0] for at, _ in frames]
    assert times == pytest.approx([0, 0.2, 1.0, 1.2], abs=0.25)


async def test_the_recorded_traffic_is_served_untouched(recorded: Path, nursery: trio.Nursery) -> None:
    recording = Recording.load(recorded)
    lines = (recorded / "okx_ws_btcusdt_2022-05-13.jsonl").read_text().splitlines()
    frames = [json.loads(line)["frame"] for line in lines]
    pushes = [frame for frame in frames if '"channel":"tickers"' in frame and '"data"' in frame]

    assert [frame.payload.decode() for frame in recording.frames] == pushes
    assert recording.instruments == {"BTC-USDT"}
    pair = binance(recording, 'ticker/24hr?symbols=["BTCUSDT","ETHUSDT"]')
    name = "binance_rest_ticker24hr_BTCUSDT_ETHUSDT_2024-11-01.json"
    assert pair == (recorded / name).read_bytes()
    book = binance(recording, "depth?symbol=BTCUSDT&limit=20")
    assert book == (recorded / "binance_rest_depth_BTCUSDT.json").read_bytes()
    markets = recording.coingecko(VenueRequest("GET", "/api/v3/coins/markets?vs_currency=usd"))
    assert [coin["id"] for coin in msgspec.json.decode(markets.body)] == ["bitcoin"]

    with trio.fail_after(8):
        got = await play(recording, nursery, "BTC-USDT")
    assert [frame for _, frame in got] == pushes[:4]
