"""Orders and scenarios: what is taken, what is refused and in which words; the table of all faults."""

from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.base import State
from connectors.simulator.faults.faults import Disconnect, HttpStatus, Lasting, Silence
from connectors.simulator.faults.orders import (
    FAULT_TYPES,
    Clear,
    OrderError,
    Scenario,
    ScenarioError,
    Step,
    load_scenario,
    read_order,
    read_scenario,
)
from connectors.simulator.faults.table import FAULTS


def test_an_order_becomes_a_fault_with_its_defaults() -> None:
    assert read_order({"fault": "silence", "venue": "okx", "for_s": 5}) == Silence(venue="okx", pongs=True, for_s=5.0)
    assert read_order({"fault": "silence", "pongs": False}) == Silence(venue="okx", pongs=False)
    status = {"fault": "http_status", "venue": "binance", "status": 429, "retry_after_s": 2, "path": "/api/v3/depth"}
    assert read_order(status) == HttpStatus(venue="binance", status=429, retry_after_s=2, path="/api/v3/depth")
    assert read_order({"fault": "disconnect", "code": 4001}) == Disconnect(venue="okx", code=4001)
    assert read_order({"clear": True}) == Clear()
    assert read_order({"clear": "silence", "venue": "okx"}) == Clear("silence", "okx")


@pytest.mark.parametrize(
    ("table", "errors"),
    [
        ({}, ["one of fault, clear is needed; allowed as fault: silence, mute"]),
        ([], ["got a list; allowed: a table"]),
        ({"fault": "silense"}, ['fault: got "silense"; nearest is silence']),
        ({"fault": 7}, ["fault: got 7; allowed: silence, mute"]),
        ({"fault": "silence", "pongs": 3}, ["pongs: got 3; allowed: true or false"]),
        (
            {"fault": "silence", "venue": "coingecko"},
            ['venue: got "coingecko"; silence is for binance and bybit and coinbase and kraken and okx'],
        ),
        ({"fault": "lost_updates"}, ["venue: missing; lost_updates is for binance and bybit and coinbase and kraken"]),
        ({"fault": "notice", "venue": "kraken"}, ['venue: got "kraken"; notice is for okx']),
        ({"fault": "refuse"}, ["venue: missing; refuse is for binance and coingecko and okx"]),
        ({"fault": "silence", "pong": True}, ["pong: unknown field of silence; nearest is pongs"]),
        ({"fault": "disconnect", "for_s": 1}, ["for_s: unknown field of disconnect; allowed: venue, code, reason"]),
        ({"fault": "disconnect", "code": 1002}, ["code: got 1002; allowed: one of 1000, 1001, 1006"]),
        ({"fault": "http_status", "venue": "okx"}, ["status: missing; allowed: an HTTP status from 400 to 599"]),
        (
            {"fault": "http_status", "venue": "okx", "status": 200, "for_s": -1},
            ["for_s: got -1; allowed: seconds, over 0, up to 86400", "status: got 200; allowed: an HTTP status"],
        ),
        (
            {"fault": "reset", "venue": "binance", "path": "/depth"},
            ['path: got "/depth"; allowed: one of /api/v3/depth'],
        ),
        ({"fault": "refuse", "venue": "okx", "path": "/x"}, ['path: got "/x"; allowed: not with okx']),
        (
            {"fault": "delisted", "venue": "okx", "instrument": "X/Y"},
            ['instrument: got "X/Y"; allowed: one of ADA/USD'],
        ),
        ({"fault": "clock_skew", "venue": "okx", "offset_s": float("inf")}, ["offset_s: got inf; allowed: seconds"]),
        ({"fault": "garbage", "share": True}, ["share: got true; allowed: a number over 0, up to 1"]),
        ({"clear": False}, ["clear: got false; true, or allowed: silence"]),
        ({"clear": True, "venue": "okex", "x": 1}, ["x: unknown field of clear", 'venue: got "okex"; nearest is okx']),
    ],
)
def test_a_wrong_order_names_the_value_and_what_is_allowed(table: object, errors: list[str]) -> None:
    with pytest.raises(OrderError) as caught:
        read_order(table)

    assert len(caught.value.errors) == len(errors)
    for line, begin in zip(caught.value.errors, errors, strict=True):
        assert line.startswith(begin)


def test_a_scenario_is_sorted_by_time_and_stable() -> None:
    scenario = read_scenario(
        {
            "step": [
                {"at_s": 9, "clear": True},
                {"at_s": 0.5, "fault": "silence", "for_s": 2},
                {"at_s": 9, "fault": "mute"},
            ]
        }
    )

    assert [step.at_s for step in scenario.steps] == [0.5, 9, 9]
    assert scenario.steps[1] == Step(9.0, Clear())


def test_a_scenario_names_each_step_and_key_that_is_wrong() -> None:
    with pytest.raises(ScenarioError) as caught:
        read_scenario(
            {
                "steps": [],
                "step": [
                    {"at_s": 1, "fault": "silence"},
                    {"fault": "silence", "pongs": 3},
                    {"at_s": True, "fault": "x"},
                    4,
                ],
            }
        )

    assert caught.value.errors[:3] == (
        "steps: unknown key; allowed: step",
        "step 2: at_s: missing; allowed: seconds, from 0 to 86400",
        "step 2: pongs: got 3; allowed: true or false",
    )
    assert caught.value.errors[3] == "step 3: at_s: got true; allowed: seconds, from 0 to 86400"
    assert caught.value.errors[5] == "step 4: got 4; allowed: a table"


def test_a_scenario_file(tmp_path: Path) -> None:
    file = tmp_path / "faults.toml"
    file.write_text('[[step]]\nat_s = 2\nfault = "silence"\n')
    assert load_scenario(file) == Scenario((Step(2.0, Silence(venue="okx")),))

    for text, line in (
        ('[[step]]\nat_s = 2\nfault = "silence"\nfor_s = "x"\n', 'step 1: for_s: got "x"; allowed: seconds, over 0'),
        ("[[step", "not TOML: "),
        ("", "step: got 0 of them; allowed: 1 to 10000"),
    ):
        file.write_text(text)
        with pytest.raises(ScenarioError) as caught:
            load_scenario(file)
        assert str(caught.value).startswith(f"{file}: {line}")
    file.write_bytes(b"\xff")
    with pytest.raises(ScenarioError, match="not TOML"):
        load_scenario(file)
    with pytest.raises(ScenarioError, match="cannot be read: No such file"):
        load_scenario(tmp_path / "none.toml")


KEYS = st.sampled_from(["fault", "clear", "venue", "at_s", "for_s", "times", "path", "field", "code"]) | st.text(
    max_size=5
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=10)
    | st.dates()
    | st.datetimes()
    | st.times()
    | st.sampled_from([*FAULT_TYPES, "okx", "binance", "/api/v3/depth", 2**200])
)
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5))
FAULT_TABLES = st.sampled_from([*FAULT_TYPES]).flatmap(
    lambda name: st.fixed_dictionaries(
        {"fault": st.just(name), "at_s": st.integers(0, 5)},
        optional={field.encode_name: LEAVES for field in msgspec.structs.fields(FAULT_TYPES[name])},
    )
)


@given(TREES | st.fixed_dictionaries({"step": st.lists(TREES | FAULT_TABLES, min_size=1, max_size=4)}))
def test_whatever_tree_comes_only_a_scenario_error_comes_out(tree: Any) -> None:
    errors: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    try:
        steps = read_scenario(tree).steps
    except ScenarioError as error:
        errors = error.errors

    assert bool(errors) is not bool(steps)
    assert all(isinstance(line, str) and len(line) < 1_500 and "\n" not in line for line in errors)


def test_the_table_holds_every_fault_with_words_parameters_and_cases() -> None:
    assert [kind.name for kind in FAULTS] == list(FAULT_TYPES)
    states = set(get_args(State))
    for kind in FAULTS:
        assert kind.about.endswith(".")
        assert kind.venues
        assert {case.fault.venue for case in kind.cases} <= set(kind.venues)
        assert kind.cases or kind.streams
        for stream in kind.streams:
            assert {fault.venue for fault in stream.faults} <= set(kind.venues)
            assert all(read_order(msgspec.to_builtins(fault)) == fault for fault in stream.faults)
        for case in kind.cases:
            assert case.expects <= states
            assert read_order(msgspec.to_builtins(case.fault)) == case.fault
            lasting = case.lasting(3.0)
            assert not isinstance(lasting, Lasting) or lasting.for_s == 3.0
        described = msgspec.json.decode(msgspec.json.encode(kind.described()))
        assert described["fault"] == kind.name
    titles = [case.title for kind in FAULTS for case in kind.cases] + [
        case.title for kind in FAULTS for case in kind.streams
    ]
    assert len(set(titles)) == len(titles)
    assert "okx disconnect code=1008" in titles
