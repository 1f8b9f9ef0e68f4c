"""An entry of the stream is the part that it was made of, and reads as what the document of the format says."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.health.board import ChannelState
from daemon.publish.cluster.entry import (
    EntryId,
    StrangeEntryError,
    beyond,
    fields,
    merged,
    read,
    size_bytes,
)
from daemon.publish.parts import Part
from daemon.tape.copying import Row
from daemon.tape.ledger import LedgerGap

texts = st.text(max_size=8)
payloads = st.dictionaries(texts, st.integers() | texts, max_size=3).map(lambda each: json.dumps(each).encode())
rows = st.builds(
    Row,
    seq=st.integers(1, 2**53 - 1),
    ordinal=st.integers(1, 2**40),
    channel=texts,
    instrument=texts,
    payload=payloads,
    received_ms=st.integers(0, 2**45),
)
states = st.builds(ChannelState, state=st.sampled_from(["live", "stale"]), since_ms=st.integers(0, 2**45), reason=texts)
gaps = st.builds(
    LedgerGap,
    id=st.integers(1, 5),
    cause=st.sampled_from(["lagged", "cluster"]),
    channel=texts,
    start_ms=st.integers(0, 2**45),
    end_ms=st.none() | st.integers(0, 2**45),
    last_ms=st.integers(0, 2**45),
    reason=texts,
)
parts = st.builds(
    Part,
    before=st.integers(0, 2**53 - 1),
    rows=st.lists(rows, max_size=4),
    states=st.dictionaries(texts, states, max_size=2),
    gaps=st.lists(gaps, max_size=2),
    channels=st.none(),
    skip=st.integers(0, 2**53 - 1),
)


def as_read(found: list[str | bytes]) -> dict[bytes, bytes]:
    """The fields as the engine gives them back."""
    raw = [each.encode() if isinstance(each, str) else each for each in found]
    return dict(zip(raw[::2], raw[1::2], strict=True))


@given(parts, texts, st.booleans(), st.booleans())
def test_what_is_written_is_read(part: Part, epoch: str, left: bool, seed: bool) -> None:
    found = fields(part, epoch, "one", left=left, seed=seed)
    carried = read(b"7-1", as_read(found))
    assert (carried.id, carried.epoch, carried.node) == (EntryId(7, 1), epoch, "one")
    assert (carried.part, carried.left, carried.seed) == (part, left, seed)
    assert size_bytes(found) >= sum(len(row.payload) for row in part.rows)


def test_another_program_reads_it_line_by_line() -> None:
    said = [b'{"type":"trade","seq":8}', b'{"type":"status","seq":9}']
    part = Part(7, [Row(8, 3, "okx_trades", "BTC/USDT", said[0], 1700), Row(9, 1, "okx_trades", "!status", said[1])])
    found = as_read(fields(part, "k3vQ", "ams1"))
    assert found == {
        b"v": b"1",
        b"epoch": b"k3vQ",
        b"node": b"ams1",
        b"before": b"7",
        b"messages": b'{"type":"trade","seq":8}\n{"type":"status","seq":9}',
        b"index": b'[[8,3,"okx_trades","BTC/USDT",1700],[9,1,"okx_trades","!status",0]]',
    }


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({b"v": b"2"}, "entry 7-0 has version 2 of the format; this tickerd reads version 1"),
        ({b"v": None}, "entry 7-0 has no version of the format; this tickerd reads version 1"),
        ({b"index": b"[[1]]"}, "entry 7-0 cannot be read"),
        ({b"index": b'[[8,1,"a","",0],[9,2,"a","",0]]'}, "entry 7-0 cannot be read"),
        ({b"messages": None}, "entry 7-0 cannot be read"),
        ({b"before": b"x"}, "entry 7-0 cannot be read"),
        ({b"epoch": b"\xff"}, "entry 7-0 cannot be read"),
        ({b"beside": b'{"states":1}'}, "entry 7-0 cannot be read"),
    ],
)
def test_what_is_none_is_refused_with_its_id(change: dict[bytes, bytes | None], why: str) -> None:
    found = as_read(fields(Part(7, [Row(8, 1, "a", "", b"{}")]), "k3vQ", "one"))
    changed = {name: value for name, value in (found | change).items() if value is not None}
    with pytest.raises(StrangeEntryError, match=why):
        read(b"7-0", changed)


@given(st.dictionaries(st.sampled_from([b"v", b"epoch", b"before", b"messages", b"index", b"beside"]), st.binary()))
def test_nothing_else_comes_of_any_fields(found: dict[bytes, bytes]) -> None:
    with pytest.raises(StrangeEntryError):
        read(b"1-0", found)


@pytest.mark.parametrize("text", ["", "7", "7-", "-1", "a-b", "7-1-2", "\u0667-1"])
def test_an_id_that_is_none_of_a_tape_is_refused(text: str) -> None:
    with pytest.raises(StrangeEntryError, match="SEQ-N is expected"):
        EntryId.read(text)


def test_ids_rise_also_where_the_tape_does_not() -> None:
    ids = [EntryId()]
    for seq in (0, 0, 5, 5, 9, 10):
        ids.append(ids[-1].then(seq))
    assert [str(each) for each in ids] == ["0-0", "0-1", "0-2", "5-0", "5-1", "9-0", "10-0"]
    assert all(one < other for one, other in pairwise(ids))
    assert [EntryId.read(str(each)) for each in ids] == ids


def row(seq: int) -> Row:
    return Row(seq, seq, "a", "", b"{}")


def test_parts_that_wait_together_become_one_but_for_what_holds_before_its_rows() -> None:
    state = ChannelState("live", 1)
    gap = LedgerGap(1, "lagged", "", 1, None, 1)
    later = LedgerGap(1, "lagged", "", 1, None, 2)
    found = [
        Part(0, [row(1)], {"a": ChannelState("stale", 1)}, [gap]),
        Part(1, [row(2), row(3)], {"a": state}, [later]),
        Part(3, [row(4)], channels=[]),
        Part(4, [row(5)]),
        Part(5, [], skip=100),
        Part(100, [row(101)]),
    ]
    assert list(merged(iter(found))) == [
        (2, Part(0, [row(1), row(2), row(3)], {"a": state}, [later])),
        (2, Part(3, [row(4), row(5)], channels=[])),
        (2, Part(5, [row(101)], skip=100)),
    ]
    assert list(merged(iter([]))) == []


def test_a_tape_that_has_some_of_a_part_takes_the_rest() -> None:
    part = Part(3, [row(4), row(5), row(6)], skip=0)
    assert beyond(part, 3) is part
    assert beyond(part, 2) is part, "what is missing before it is for others to find out"
    assert beyond(part, 5) == Part(5, [row(6)])
    assert beyond(part, 9) == Part(9, [])
    assert beyond(Part(3, [row(101)], skip=100), 50) == Part(50, [row(101)], skip=100)
