"""Tables of a recording: exact in every format, opened by those who read them, and never left half-written."""

import csv
import errno
import json
import signal
import sys
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from connectors.base import Event
from connectors.capture.lines import Lost
from daemon.commands.export import sinks
from daemon.commands.export.export import Exported, export
from daemon.commands.export.rows import Rows
from daemon.commands.export.sinks import ExportError
from tests.connectors.replay.made import BEGAN_MS, channel, header, line, record
from tests.process.running import tickerd

TRADES = channel("okx_trades", "okx", "trades", "BTC/USDT", "ETH/USDT")
PRICES = ["42150.50", "0.00000001", "123456789012345678.5", "3400"]


def trade(number: int, price: str, instrument: str = "BTC-USDT") -> str:
    row = {"instId": instrument, "tradeId": str(100 + number), "px": price, "sz": "0.10", "side": "buy"}
    row["ts"] = str(BEGAN_MS + number)
    return json.dumps({"arg": {"channel": "trades", "instId": instrument}, "data": [row]}, separators=(",", ":"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "record"
    made.mkdir()
    lines = [line(0, opened="a")]
    lines += [line(number, frame=trade(number, price)) for number, price in enumerate(PRICES, 1)]
    lines += [line(20, lost=Lost(3, 99, BEGAN_MS + 5, BEGAN_MS + 20, "the disk was too slow"))]
    lines += [line(30, frame=trade(1, "3400.5", "ETH-USDT"))]
    record(made, header("okx", [TRADES]), lines)
    return made


def made(folder: Path, out: Path, **more: object) -> Exported:
    asked = {"kind": "trades", "from_ms": None, "to_ms": None, "instruments": (), "force": False} | more
    return export(folder, out, **asked)  # type: ignore[arg-type] # of any type


def test_csv_and_json_lines_have_the_venues_digits(folder: Path, tmp_path: Path) -> None:
    done = made(folder, tmp_path / "out.csv")
    assert (done.rows, done.topics) == (5, 2)
    (gap,) = done.remarks
    assert gap.endswith("was not recorded: the disk was too slow")
    assert gap.startswith("okx_trades: 3 frames of its connection from 2025-12-08T16:30:00.005Z to")
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["price"] for row in rows] == [*PRICES, "3400.5"]
    assert rows[0] == {
        "venue": "okx",
        "channel": "okx_trades",
        "instrument": "BTC/USDT",
        "exchange_ms": str(BEGAN_MS + 1),
        "received_ms": str(BEGAN_MS + 1),
        "price": "42150.50",
        "size": "0.10",
        "side": "buy",
        "trade_id": "101",
    }
    made(folder, tmp_path / "out.jsonl", instruments=("ETH/USDT",))
    (text,) = (tmp_path / "out.jsonl").read_text().splitlines()
    told = json.loads(text)
    assert (told["price"], told["received_ms"]) == ("3400.5", BEGAN_MS + 30)


def test_a_span_is_what_is_in_the_table(folder: Path, tmp_path: Path) -> None:
    made(folder, tmp_path / "out.jsonl", from_ms=BEGAN_MS + 2, to_ms=BEGAN_MS + 3)
    prices = [json.loads(text)["price"] for text in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert prices == PRICES[1:3]


def test_parquet_is_exact_and_is_opened_by_its_readers(folder: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    pandas, polars, duckdb = map(pytest.importorskip, ("pandas", "polars", "duckdb"))
    path = tmp_path / "out.parquet"
    assert made(folder, path).rows == 5
    exact = [Decimal(price) for price in (*PRICES, "3400.5")]
    moment = datetime.fromtimestamp(BEGAN_MS / 1000, UTC).replace(microsecond=1000)

    table = parquet.read_table(path)
    assert str(table.schema.field("price").type) == "decimal128(38, 8)"
    assert str(table.schema.field("received_ms").type) == "timestamp[ms, tz=UTC]"
    assert table.column("price").to_pylist() == exact

    frame = pandas.read_parquet(path)
    assert list(frame["price"]) == exact
    assert frame["exchange_ms"][0].to_pydatetime() == moment

    lazy = polars.read_parquet(path)
    assert lazy["price"].to_list() == exact
    assert lazy["exchange_ms"][0] == moment

    with duckdb.connect() as database:
        query = "select price, side, trade_id, epoch_ms(received_ms) from read_parquet(?) order by received_ms"
        found = database.execute(query, [str(path)]).fetchall()
    assert [row[0] for row in found] == exact
    assert found[0][1:] == ("buy", "101", BEGAN_MS + 1)


def test_digits_that_no_decimal_holds_stay_text_and_that_is_told(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = tmp_path / "record"
    folder.mkdir()
    long = ["123456789012345678901234.5", "0.000000000000000000001"]
    lines = [line(number, frame=trade(number, price)) for number, price in enumerate(long, 1)]
    record(folder, header("okx", [TRADES]), lines)
    done = made(folder, tmp_path / "out.parquet")
    assert done.remarks == ["price stays text: its values need 45 digits, a decimal has 38"]
    assert parquet.read_table(tmp_path / "out.parquet").column("price").to_pylist() == long


def test_an_empty_table_has_its_columns(folder: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    made(folder, tmp_path / "out.parquet", from_ms=BEGAN_MS + 6, to_ms=BEGAN_MS + 7)
    table = parquet.read_table(tmp_path / "out.parquet")
    assert (table.num_rows, table.column_names[:3]) == (0, ["venue", "channel", "instrument"])


def test_of_another_kind_nothing_is_made_a_row() -> None:
    assert [*Rows({}).of(Event("a", "b", b"{}", 1))] == []


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("out.xls", {}, "out.xls: no format is known by that name; allowed: *.parquet, *.csv, *.jsonl"),
        ("there.csv", {}, "there.csv: is there already; --force replaces it"),
        ("nowhere/out.csv", {}, "nowhere/out.csv: the folder {tmp}/nowhere does not exist"),
        ("folder.csv", {}, "folder.csv: is a folder; expected the name of a file"),
        ("out.csv", {"kind": "quotes"}, None),
        ("out.csv", {"instruments": ("X/Y",)}, None),
    ],
)
def test_what_cannot_be_made_is_said_before_anything_is_written(
    folder: Path, tmp_path: Path, name: str, more: dict[str, object], said: str | None
) -> None:
    (tmp_path / "there.csv").write_text("precious")
    (tmp_path / "folder.csv").mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ExportError) as refused:
        made(folder, tmp_path / name, **more)
    if said is not None:
        assert str(refused.value) == f"{tmp_path}/{said.format(tmp=tmp_path)}"
    elif "kind" in more:
        assert str(refused.value) == f"{folder} has no channel of kind quotes; it has: trades"
    else:
        assert str(refused.value) == "--instrument X/Y: no trades of it were recorded; allowed: BTC/USDT, ETH/USDT"
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "there.csv").read_text() == "precious"


def test_force_replaces_a_file_once_the_new_one_is_whole(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("old")
    made(folder, tmp_path / "out.csv", force=True)
    assert (tmp_path / "out.csv").read_text().startswith("venue,")


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_what_fails_or_is_interrupted_leaves_nothing(
    folder: Path, tmp_path: Path, suffix: str, error: BaseException
) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow")

    def stop(share: float) -> None:
        raise error

    kind = ExportError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(kind) as failed:
        made(folder, tmp_path / f"out.{suffix}", progress=stop)
    if kind is ExportError:
        assert str(failed.value) == f"{tmp_path}/out.{suffix}: cannot be written: No space left on device"
    assert [path.name for path in tmp_path.iterdir()] == ["record"]


def test_without_pyarrow_it_says_what_to_install(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "daemon.commands.export.parquet", raising=False)
    with pytest.raises(ExportError, match=r"Parquet needs pyarrow: pip install 'tickerd\[parquet\]'; or name the file"):
        sinks.check(tmp_path / "out.parquet", force=False)


def test_the_command_says_what_it_did(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    with tickerd("export", str(folder), str(out), "--kind", "trades", "--instrument", "BTC/USDT") as process:
        assert process.wait() == 0
    assert process.lines[-1] == f"{out}: 4 rows of 1 topic"
    with tickerd("export", str(folder), str(out), "--kind", "trades") as process:
        assert process.wait() == 1
    assert process.lines == [f"tickerd: {out}: is there already; --force replaces it"]


def test_ctrl_c_ends_it_with_nothing_left(tmp_path: Path) -> None:
    folder = tmp_path / "record"
    folder.mkdir()
    text = "\n".join(line_of(number) for number in range(200_000))
    head = header("okx", [TRADES])
    record(folder, head, [line(0, opened="a")])
    (path,) = (folder / "okx").iterdir()
    plain = folder / "okx.jsonl"
    from connectors.capture.lines import Line, written

    plain.write_bytes(written(Line(BEGAN_MS / 1000, record=head)) + text.encode())
    path.unlink()
    with tickerd("export", str(folder), str(tmp_path / "out.csv"), "--kind", "trades") as process:
        deadline = time.monotonic() + 20
        while not (tmp_path / "out.csv.part").exists():
            assert time.monotonic() < deadline
            assert process.process.poll() is None
            time.sleep(0.01)
        assert process.stop(signal.SIGINT) == 130
    assert not [text for text in process.lines if "Traceback" in text]
    assert [path.name for path in tmp_path.iterdir()] == ["record"]


def line_of(number: int) -> str:
    frame = json.dumps(trade(number, "42150.5"))
    return f'{{"recv_ts":{(BEGAN_MS + number) / 1000},"frame":{frame}}}'
