"""What the page shows while clocks are set: the daemon's, or that of the machine on which somebody looks."""

import json
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
MARKET = Path(__file__).parents[3] / "daemon" / "routes" / "web" / "market.js"
START_MS = 1_764_999_000_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03d}Z"


class Story:
    """Steps, as the daemon's clock has them; each `yields` one thing to look at."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.daemon_ms = START_MS
        self.seq = 10

    def passes(self, ms: int) -> None:
        self.daemon_ms += ms
        self.steps.append({"ticks": ms})

    def welcome(self, epoch: str = "first") -> None:
        self.steps.append({"welcome": {"epoch": epoch, "seq": self.seq, "timestamp": iso(self.daemon_ms)}})

    def price(self, digits: str, *, channel: str = "bitcoinprice", seq: int | None = None, old_ms: int = 0) -> None:
        """A message as it is published now; with a `seq` of its own, an old one."""
        self.seq += seq is None
        exchange = "okx" if channel == "bitcoinprice" else "binance"
        data = {"lastPrice": digits} if channel == "binance_24hr" else {"price": digits}
        message = {
            "connector_id": channel,
            "exchange": exchange,
            "instrument": "BTC/USDT",
            "seq": self.seq if seq is None else seq,
            "price": float(digits),
            "received_ms": self.daemon_ms - old_ms,
            "timestamp": iso(self.daemon_ms - old_ms),
            "data": data,
        }
        self.steps.append({"message": message})

    def shown(self, tmp_path: Path, market: Path = MARKET) -> list[Any]:
        node = shutil.which("node")
        if node is None:
            pytest.skip("no node here; Debian and Ubuntu have it: apt-get install nodejs")
        steps = tmp_path / "steps.json"
        steps.write_text(json.dumps(self.steps))
        command = [node, str(HERE / "market_clock.mjs"), str(market), str(steps)]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stderr
        shown: list[Any] = json.loads(ran.stdout)
        return shown


def okx(shown: list[Any]) -> Any:
    return shown[-1]["prices"]["BTC/USDT okx"]


@pytest.mark.parametrize("step_ms", [-HOUR_MS, -DAY_MS, -2_000, 2_000, HOUR_MS, DAY_MS])
def test_prices_go_on_when_the_daemons_clock_is_set(tmp_path: Path, step_ms: int) -> None:
    story = Story()
    story.welcome()
    story.price("1.50")
    story.passes(700)
    story.price("1.60")
    story.daemon_ms += step_ms
    story.passes(700)
    story.price("1.70")
    story.passes(700)
    story.price("1.80")
    price = okx(story.shown(tmp_path))
    assert price["digits"] == "1.80"
    assert 0 <= price["age_ms"] < 100
    at = [moment for bucket in price["series"] for moment in bucket]
    assert at == sorted(at), "a chart's line does not go back"
    assert at[-1] - at[0] == 2_100, "and has the times that have passed"


@pytest.mark.parametrize("step_ms", [-HOUR_MS, -2_000, -500, 500])
def test_an_age_goes_on_when_the_pages_own_clock_is_set(tmp_path: Path, step_ms: int) -> None:
    story = Story()
    story.welcome()
    story.price("1.50")
    story.passes(3_000)
    story.steps.append({"wall": step_ms})
    story.passes(4_000)
    assert okx(story.shown(tmp_path))["age_ms"] == 7_000


def test_a_sleep_in_which_the_pages_ticks_stood_still_counts(tmp_path: Path) -> None:
    story = Story()
    story.welcome()
    story.price("1.50")
    story.passes(3_000)
    story.steps.append({"wall": HOUR_MS})
    story.passes(1_000)
    assert okx(story.shown(tmp_path))["age_ms"] == HOUR_MS + 4_000
    story.daemon_ms += HOUR_MS
    story.price("1.60")
    assert okx(story.shown(tmp_path)) | {"series": 0} == {"digits": "1.60", "age_ms": 0, "series": 0}


def test_an_old_message_is_as_old_as_it_is(tmp_path: Path) -> None:
    story = Story()
    story.welcome()
    story.price("1.50", seq=7, old_ms=40_000)
    assert okx(story.shown(tmp_path))["age_ms"] == 40_000


def test_of_two_channels_of_a_venue_the_one_published_later_is_shown_whatever_the_clock_says(tmp_path: Path) -> None:
    story = Story()
    story.welcome()
    story.price("1.50", channel="binance_prices")
    story.daemon_ms -= HOUR_MS
    story.price("1.60", channel="binance_24hr")
    story.price("1.40", channel="binance_prices", seq=9)
    story.price("1.30", channel="binance_24hr", seq=8)
    shown = story.shown(tmp_path)[-1]
    assert shown["prices"]["BTC/USDT binance"]["digits"] == "1.60"
    assert shown["day"] == "1.60"


@pytest.mark.parametrize("epoch", ["first", "second"])
def test_a_restarted_daemon_counts_anew(tmp_path: Path, epoch: str) -> None:
    """Another epoch; or the same one where the end of the tape was lost in an unclean stop."""
    story = Story()
    story.seq = 5_000
    story.welcome()
    story.price("1.50")
    story.seq = 3
    story.daemon_ms -= HOUR_MS
    story.welcome(epoch)
    story.price("1.60")
    assert okx(story.shown(tmp_path))["digits"] == "1.60"
