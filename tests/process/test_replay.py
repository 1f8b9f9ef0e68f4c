"""A recording of all venues, with faults, made by a real daemon and served by another one."""

import json
import time
from pathlib import Path

import httpx
import pytest

from tests.process.listening import Listener, Message, Topic
from tests.process.running import Process, tickerd, wait_ready
from tests.process.test_terminal import open_terminal

PRESETS = '["seed", "binance", "okx", "coinbase", "kraken", "bybit", "market"]'
FAULTS: tuple[dict[str, object], ...] = (
    {"fault": "disconnect", "venue": "okx"},
    {"fault": "disconnect", "venue": "coinbase"},
    {"fault": "lost_updates", "venue": "binance", "for_s": 1},
    {"fault": "lost_updates", "venue": "bybit", "for_s": 1},
    {"fault": "wrong_checksum", "venue": "kraken", "for_s": 1},
    {"fault": "doubled_updates", "venue": "okx", "for_s": 1},
    {"fault": "lost_trades", "venue": "binance", "for_s": 1},
    {"fault": "notice", "venue": "okx"},
    {"fault": "http_status", "venue": "coingecko", "status": 503, "for_s": 3},
    {"fault": "garbage", "venue": "okx", "for_s": 1},
    {"fault": "bad_row", "venue": "binance", "instrument": "ETH/USDT", "for_s": 3},
)
EACH_S = 4.5
"""Between two faults, so that the recording is a minute long."""


class Recorded:
    """A recording, and what a client of the daemon that made it was told."""

    def __init__(self, folder: Path, live: Listener) -> None:
        self.folder = folder
        self.live = live


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("recorded")
    config = folder / "venues.toml"
    (folder / "record").mkdir()
    environ = {
        "TICKERD_SERVER__PORT": "0",
        "TICKERD_RECORD__PATH": str(folder / "record"),
        "TICKERD_CATALOGUE__PRESETS": PRESETS,
    }
    with tickerd("simulate", "--port", "0", "--config-out", str(config)) as venues:
        assert venues.port
        with tickerd("run", "--config", str(config), environ=environ) as process:
            live = Listener(process.port)
            wait_ready(process.port)
            for fault in FAULTS:
                answer = httpx.post(f"http://127.0.0.1:{venues.port}/control", json=fault)
                assert answer.status_code == 200, answer.text
                time.sleep(EACH_S)
            time.sleep(60 - len(FAULTS) * EACH_S)
            assert process.stop() == 0
            live.wait(10)
    return Recorded(folder / "record", live)


def play(folder: Path, *arguments: str) -> tuple[Listener, Process]:
    """Listen to a replay from its beginning to its end."""
    with tickerd("replay", str(folder), "--port", "0", *arguments) as process:
        listener = Listener(process.port, lambda one: len(one.ended()) >= len(one.welcome["channels"]) - 1, whole=True)
        listener.wait(60)
        assert process.stop() == 0
    assert all(all(each["recovered"].values()) for each in listener.others if each["type"] == "subscribed")
    return listener, process


def test_twice_ten_times_as_fast_says_the_same_digit_for_digit(recorded: Recorded) -> None:
    (first, _), (second, _) = play(recorded.folder, "--speed", "10"), play(recorded.folder, "--speed", "10")
    assert first.welcome["replay"]["speed"] == 10
    assert first.welcome["channels"] == second.welcome["channels"]
    assert len(first.topics) > 60
    assert sum(map(len, first.topics.values())) > 3000
    assert first.topics.keys() == second.topics.keys()
    for topic, messages in first.topics.items():
        assert second.topics[topic] == messages, topic
    # What was told of the channels is the same, too.
    assert _tail(first.statuses) == _tail(second.statuses)
    assert {"gap", "unreadable"} & {
        topic["cause"] for status in first.statuses for topic in status.get("topics", {}).values()
    }


def _tail(statuses: list[Message]) -> list[tuple[str, str, object]]:
    return [(each["channel"], each["state"], each.get("reason")) for each in statuses[-200:]]


def test_what_was_told_live_is_told_again(recorded: Recorded) -> None:
    again, process = play(recorded.folder, "--speed", "10")
    compared = 0
    for topic, messages in recorded.live.topics.items():
        if topic[0].endswith(("_book", "market_quotes")):
            continue  # which moment's best levels are told depends on when the daemon got to look
        compared += _within(topic, messages, again.topics.get(topic, []))
    assert compared > 2000
    assert not [line for line in process.lines if " ERROR " in line or "Traceback" in line]


def _within(topic: Topic, live: list[Message], again: list[Message]) -> int:
    """How many of the messages were compared: all that was live is in the replay, in its order."""
    # The snapshot on subscribing may be of before.
    told, at = [_content(message) for message in again], 0
    missing = []
    for message in live:
        try:
            at = told.index(_content(message), at) + 1
        except ValueError:
            missing.append(message)
    assert len(missing) <= 1 + len(live) // 50, (topic, len(live), len(again), missing[:2])
    return len(live) - len(missing)


def _content(message: Message) -> str:
    return json.dumps({key: value for key, value in message.items() if key not in ("received_ms", "cached")})


def test_the_replay_says_what_it_is_everywhere(recorded: Recorded) -> None:
    with tickerd("replay", str(recorded.folder), "--port", "0", "--speed", "max") as process:
        listener = Listener(process.port, stop=lambda one: len(one.ended()) >= len(one.welcome["channels"]) - 1)
        listener.wait(60)
        told = listener.welcome["replay"]
        assert told["speed"] == "max"
        assert told["from"] < told["to"]
        assert process.lines[0] == f"playing {recorded.folder} from {told['from']} to {told['to']}, speed max"
        states = json.loads(httpx.get(f"http://127.0.0.1:{process.port}/channels").content)["channels"]
        assert {each["reason"] for each in states if each["source"] != "market"} == {"the recording ended"}
        gaps = json.loads(httpx.get(f"http://127.0.0.1:{process.port}/gaps?limit=200").content)["gaps"]
        assert all(told["from"] <= gap["start"] <= told["to"] for gap in gaps)
        assert process.process.poll() is None, "it stays up until Ctrl-C"
        assert process.stop() == 0


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_watch_says_that_it_is_a_recording(recorded: Recorded, term: str) -> None:
    with tickerd("replay", str(recorded.folder), "--port", "0") as process:
        arguments = ("watch", "--url", f"127.0.0.1:{process.port}", "bitcoinprice")
        with open_terminal(*arguments, term=term, columns=160) as screen:
            screen.read(lambda printed: "a recording from 20" in printed and "played at speed 1.0" in printed)
            screen.read(lambda printed: "bitcoinprice" in printed.partition("played at")[2])


def test_a_span_that_is_asked_for_is_what_is_played(recorded: Recorded) -> None:
    whole, _ = play(recorded.folder, "--speed", "20")
    received = sorted(message["received_ms"] for messages in whole.topics.values() for message in messages)
    from_ms, to_ms = received[len(received) // 2], received[len(received) * 3 // 4]
    part, _ = play(recorded.folder, "--speed", "20", "--from", str(from_ms), "--to", str(to_ms))
    assert sum(map(len, part.topics.values())) > 300
    for topic, messages in part.topics.items():
        if topic[0].endswith("_depth"):
            assert messages[0]["type"] == "depth_snapshot", topic
        after = [message for message in messages if from_ms < message["received_ms"] <= to_ms]
        if topic[0].endswith(("_trades", "_depth", "_quotes", "_ticker", "price")) and topic[0] != "market_quotes":
            again = [each for each in whole.topics[topic] if from_ms < each["received_ms"] <= to_ms]
            assert after[-len(again) :] == again[-len(after) :], topic


@pytest.mark.parametrize(
    ("arguments", "said", "status"),
    [
        (
            ("--speed", "fast"),
            "tickerd: argument --speed: got 'fast'; allowed: a number from 0.001 to 1000000",
            2,
        ),
        (("--from", "noon"), "tickerd: argument --from: got 'noon'; allowed: ISO-8601, as 2025-12-08T16:30:45.123Z", 2),
        (("--from", "2200-01-01"), "tickerd: --from 2200-01-01T00:00:00.000Z: {folder} is a recording from 20", 1),
        (("--to", "1999-01-01"), "tickerd: --to 1999-01-01T00:00:00.000Z: {folder} is a recording from 20", 1),
    ],
)
def test_a_wrong_argument_is_named(recorded: Recorded, arguments: tuple[str, ...], said: str, status: int) -> None:
    with tickerd("replay", str(recorded.folder), *arguments) as process:
        assert process.wait() == status
    assert process.lines[0].startswith(said.format(folder=recorded.folder))


def test_a_folder_without_a_recording_is_named(tmp_path: Path) -> None:
    with tickerd("replay", str(tmp_path)) as process:
        assert process.wait() == 1
    assert process.lines == [
        f"tickerd: {tmp_path}: no recording is there; expected *.jsonl.zst in a folder for each venue, "
        "or *.jsonl, whose first line is a header"
    ]
