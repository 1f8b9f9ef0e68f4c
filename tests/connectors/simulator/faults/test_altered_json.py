"""Right JSON made wrong: which members, how, and nothing else."""

from copy import deepcopy
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.simulator.faults.altered_json import (
    empty_strings,
    huge_numbers,
    missing_fields,
    shifted_times,
    wrong_types,
)

BODY = {"data": [{"last": "1.5", "ts": "1800000000000", "n": 3}, {"last": "2.5", "ts": "1800000000001", "n": None}]}


def test_all_members_of_a_name_or_one_by_chance() -> None:
    tree: Any = deepcopy(BODY)
    assert wrong_types(tree, "last", Random(1)) == 2
    assert [row["last"] for row in tree["data"]] == [12_345, 12_345]
    tree = deepcopy(BODY)
    assert missing_fields(tree, "n", Random(1)) == 2
    assert [sorted(row) for row in tree["data"]] == [["last", "ts"]] * 2
    tree = deepcopy(BODY)
    assert empty_strings(tree, None, Random(1)) == 1
    assert sum(value == "" for row in tree["data"] for value in row.values()) == 1
    tree = deepcopy(BODY)
    assert missing_fields(tree, "none", Random(1)) == 0
    assert empty_strings(tree, "n", Random(1)) == 0
    assert tree == BODY


def test_numbers_and_texts_of_numbers_become_huge_and_stay_what_they_are() -> None:
    tree: Any = deepcopy(BODY)
    assert huge_numbers(tree, "1e400", "last", Random(1)) == 2
    assert [row["last"] for row in tree["data"]] == ["1e400"] * 2
    tree = deepcopy(BODY)
    assert huge_numbers(tree, "1e400", "n", Random(1)) == 1
    assert b'"n":1e400' in msgspec.json.encode(tree)
    tree = {"name": "Bitcoin", "image": "", "ok": True, "none": None}
    assert huge_numbers(tree, "1e400", None, Random(1)) == 0


@pytest.mark.parametrize(
    ("name", "value", "shifted"),
    [
        ("ts", "1800000000000", "1800000090000"),
        ("closeTime", 1_800_000_000_000, 1_800_000_090_000),
        ("serverTime", 1_800_000_000_000_000, 1_800_000_090_000_000),
        ("updated_at", 1_800_000_000, 1_800_000_090),
        ("last_updated", "2026-01-01T00:00:00.250Z", "2026-01-01T00:01:30.250Z"),
        ("last_updated", "yesterday", "yesterday"),
        ("ts", "", ""),
        ("ts", None, None),
        ("ts", True, True),
    ],
)
def test_times_in_all_their_forms_are_shifted(name: str, value: object, shifted: object) -> None:
    tree = {"rows": [{name: value, "other": 1_800_000_000}]}

    assert shifted_times(tree, 90) == 1
    assert tree == {"rows": [{name: shifted, "other": 1_800_000_000}]}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
)


@given(JSON, st.sampled_from(["a", None]), st.integers())
def test_the_same_chance_changes_the_same_and_a_wrong_type_is_another_type(
    tree: Any, field: str | None, seed: int
) -> None:
    for change in (wrong_types, missing_fields, empty_strings):
        one, other = deepcopy(tree), deepcopy(tree)
        assert change(one, field, Random(seed)) == change(other, field, Random(seed))
        assert one == other
    flat = {"a": tree}
    before = type(tree)
    assert wrong_types(flat, "a", Random(seed)) >= 1
    number = {int, float}
    assert type(flat["a"]) is not before
    assert not {type(flat["a"]), before} <= number
