"""What a daemon has recorded, served by the simulator: frames as they came, and bodies at their paths."""

from pathlib import Path

import pytest

from connectors.capture.lines import Exchange, Fetched
from connectors.simulator.http.request import VenueRequest
from connectors.simulator.venues.recorded_folder import load
from connectors.simulator.venues.recording import RecordingError
from tests.connectors.replay.made import channel, header, line, record, ticker


def test_frames_and_bodies_are_served_as_they_were_recorded(tmp_path: Path) -> None:
    trade = '{"stream":"btcusdt@trade","data":{"s":"BTCUSDT","t":1}}'
    frames = [line(5, frame="pong"), line(10, frame=ticker("1", 10)), line(510, frame=ticker("2", 510))]
    record(tmp_path, header("okx", [channel("bitcoinprice", "okx", "ticker")]), [line(0, opened="a"), *frames])
    record(
        tmp_path,
        header("binance-streams", [channel("binance_trades", "binance", "trades")]),
        [
            line(0, frame=trade),
            line(1, fetched=Fetched("BTCUSDT", "/api/v3/depth?symbol=BTCUSDT&limit=1000", '{"lastUpdateId":1}')),
        ],
    )
    record(
        tmp_path,
        header("binance_prices", [channel("binance_prices", "binance", "prices", cadence_s=10.0)]),
        [line(0, http=Exchange("GET", "/api/v3/ticker/24hr?symbols=%5B%5D", 200, {}, '[{"symbol":"BTCUSDT"}]'))],
    )
    record(
        tmp_path,
        header("coingecko_global", [channel("coingecko_global", "coingecko", "global", cadence_s=60.0)]),
        [line(0, http=Exchange("GET", "/global", 200, {}, '{"data":{}}'))],
    )
    found = load(tmp_path)
    assert [(frame.offset_s, frame.payload.decode()) for frame in found.frames] == [
        (0.0, ticker("1", 10)),
        (pytest.approx(0.5), ticker("2", 510)),
    ]
    assert found.instruments == {"BTC-USDT"}
    assert [one.text.decode() for one in found.captures["binance"].by_key["btcusdt@trade"]] == [trade]
    assert found.binance(VenueRequest("GET", "/api/v3/depth?symbol=BTCUSDT")).body == b'{"lastUpdateId":1}'
    assert found.binance(VenueRequest("GET", "/api/v3/ticker/24hr?symbol=BTCUSDT")).body == b'{"symbol":"BTCUSDT"}'
    assert found.coingecko(VenueRequest("GET", "/api/v3/global")).body == b'{"data":{}}'
    assert found.coingecko(VenueRequest("GET", "/api/v3/search/trending")).status == 404


def test_a_folder_that_is_neither_is_refused_as_ever(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"okx_ws_\*\.jsonl: not found"):
        load(tmp_path)
