"""What a rehearsal makes of its clients' notes: every kind of failure is seen, and nothing else."""

from itertools import pairwise

import pytest
from msgspec.structs import replace

from connectors.base import State
from connectors.simulator.faults import faults as f
from connectors.simulator.faults.table import TOLD_BROKEN, TOLD_NOTHING, TOLD_REMARK, Case
from daemon.commands.rehearse.judge import DISK_LINE, judge, judge_disk
from daemon.commands.rehearse.records import Data, DiskRecord, Entry, LogLine, Record, Standstill, Told

OKX = ("bitcoinprice", "ethprice")
BEGAN_S, BEGAN_MS = 100.0, 1_000_000.0
BROKEN = Case(f.Disconnect(venue="okx"), TOLD_BROKEN)
BORNE = Case(f.Fragmented(venue="okx"), TOLD_NOTHING)


def told(at_s: float, channel: str, state: State, reason: str = "") -> Told:
    return Told(BEGAN_S + at_s, BEGAN_MS + 1000 * at_s, channel, state, reason)


def push(at_s: float, number: int, channel: str = "bitcoinprice", seq: int | None = None) -> Data:
    """The push of that number; by itself, `seq` counts by ten."""
    seq = 10 * number if seq is None else seq
    return Data(BEGAN_S + at_s, channel, "BTC/USDT", seq, seq - 10, number, 1_000 + number)


def pushes(*numbers: int, start_s: float = 0.0, after: int | None = None) -> list[Entry]:
    """On both of OKX's channels, five a second; the first one follows on that of the number `after`."""
    places = [numbers[0] - 1 if after is None else after, *numbers]
    return [
        replace(push(start_s + 0.2 * place, number, name), prev_seq=10 * before)
        for place, (before, number) in enumerate(pairwise(places))
        for name in OKX
    ]


def others(at_s: float = 0.5) -> list[Entry]:
    return [Data(BEGAN_S + at_s, "binance_prices", "BTC/USDT", 5, 0)]


def record(case: Case, *entries: Entry, recovered_s: float | None = 3.0, **more: object) -> Record:
    """Of OKX; all else was well unless told otherwise."""
    made = Record(
        case=case,
        channels=OKX,
        others=("binance_prices",),
        entries=[*entries, *others()],
        began_s=BEGAN_S,
        began_ms=BEGAN_MS,
        cleared_s=BEGAN_S + 1,
        recovered_s=None if recovered_s is None else BEGAN_S + recovered_s,
    )
    return replace(made, **more)


def outage(at_s: float = 0.5) -> list[Entry]:
    """Both channels fail and come back."""
    return [
        *(told(at_s, name, "reconnecting", "OKX dropped the connection") for name in OKX),
        *(told(at_s + 0.5, name, "connecting") for name in OKX),
        *(told(at_s + 0.6, name, "live") for name in OKX),
    ]


def well(*more: Entry) -> list[Entry]:
    return [*pushes(1, 2), *outage(), *pushes(9, 10, start_s=1.2, after=2), *more]


def test_an_outage_that_was_told_and_is_over_ended_well() -> None:
    log = [LogLine(BEGAN_MS + 480, "warning", "okx: OKX dropped the connection; next attempt in 0.1 s")]
    verdict = judge(record(BROKEN, *well(), log=log))
    assert verdict.problems == ()
    assert verdict.is_well
    assert verdict.told == ("reconnecting", "connecting", "live")
    assert verdict.reason == "OKX dropped the connection"
    assert verdict.notice_s == pytest.approx(0.5)
    assert verdict.told_s == pytest.approx(0.02)
    assert verdict.recover_s == pytest.approx(0.2)


def test_a_state_that_comes_later_than_a_second_after_it_was_noticed() -> None:
    log = [LogLine(BEGAN_MS + 100, "warning", "okx: OKX dropped the connection; next attempt in 0.1 s")]
    entries = [*pushes(1), *outage(1.3), *pushes(9, start_s=2.0, after=1)]
    assert judge(record(BROKEN, *entries, log=log)).problems == ("told 1.2 s after it was noticed",)


def standstill(began_s: float, ended_s: float) -> Standstill:
    """At those moments since the fault began."""
    return Standstill(BEGAN_S + began_s, BEGAN_S + ended_s)


def test_what_clients_slept_through_is_not_held_against_the_daemon() -> None:
    log = [LogLine(BEGAN_MS + 100, "warning", "okx: OKX dropped the connection; next attempt in 0.1 s")]
    entries = [*pushes(1), *outage(1.3), *pushes(9, start_s=2.0, after=1)]
    slept = judge(record(BROKEN, *entries, log=log, standstills=[standstill(0.9, 1.3)]))
    assert slept.problems == ()
    assert slept.told_s == pytest.approx(0.8)
    # A standstill at another time excuses nothing, nor does one that is too short.
    for other in (standstill(1.3, 2.0), standstill(1.2, 1.3), standstill(-1.0, 0.1)):
        assert not judge(record(BROKEN, *entries, log=log, standstills=[other])).is_well
    silent = [*pushes(1), *pushes(2, start_s=4.5)]
    assert judge(record(BORNE, *silent, recovered_s=5.0, standstills=[standstill(3.0, 4.5)])).is_well
    assert not judge(record(BORNE, *silent, recovered_s=5.0, standstills=[standstill(4.3, 4.5)])).is_well


def test_what_another_channels_connector_noticed_does_not_count() -> None:
    log = [
        LogLine(BEGAN_MS - 500, "warning", "okx: OKX dropped the connection; next attempt in 0.1 s"),
        LogLine(BEGAN_MS + 1, "warning", "coingecko_top: OKX dropped the connection; next attempt in 0.1 s"),
        LogLine(BEGAN_MS + 1_250, "warning", "okx: OKX dropped the connection; next attempt in 0.1 s"),
    ]
    entries = [*pushes(1), *outage(1.3), *pushes(9, start_s=2.0, after=1)]
    assert judge(record(BROKEN, *entries, log=log)).told_s == pytest.approx(0.05)


def test_clients_that_were_told_nothing_of_an_outage() -> None:
    problems = judge(record(BROKEN, *pushes(1, 2, 3))).problems
    assert problems == ("clients were told nothing, not down or reconnecting",)


def test_clients_that_were_told_something_else() -> None:
    entries = [*pushes(1), *(told(0.5, name, "stale", "no data") for name in OKX), *pushes(2, start_s=0.6)]
    assert judge(record(BROKEN, *entries)).problems == ("clients were told stale, not down or reconnecting",)


def test_what_is_to_be_borne_is_borne_without_a_word() -> None:
    assert judge(record(BORNE, *pushes(1, 2, 3))).is_well
    assert judge(record(BORNE, *well())).problems == (
        "clients were told reconnecting, where the data was not to suffer",
    )


def test_what_is_to_be_borne_does_not_stop_the_data() -> None:
    entries = [entry for entry in pushes(1, 2, 3) if entry.channel == "bitcoinprice"]
    assert judge(record(BORNE, *entries)).problems == ("ethprice had no data, where it was not to suffer",)


def test_silence_without_a_word() -> None:
    entries = [*pushes(1), *pushes(2, start_s=4.5)]
    assert judge(record(BORNE, *entries, recovered_s=5.0)).problems == (
        "bitcoinprice was silent for over 4 s, and called live",
        "ethprice was silent for over 4 s, and called live",
    )
    quiet_at_the_end = judge(record(BORNE, *pushes(1), recovered_s=6.0)).problems
    assert quiet_at_the_end == (
        "bitcoinprice was silent for over 4 s, and called live",
        "ethprice was silent for over 4 s, and called live",
    )
    spoken = [*pushes(1), *outage(2.0), *pushes(9, start_s=5.5, after=1)]
    assert judge(record(BROKEN, *spoken, recovered_s=6.0)).is_well


def test_a_message_that_is_missing_in_the_chain_of_its_topic() -> None:
    polled = [
        Data(BEGAN_S, "bitcoinprice", "BTC/USDT", 10, 0),
        Data(BEGAN_S + 0.2, "bitcoinprice", "BTC/USDT", 30, 20),
        Data(BEGAN_S + 0.3, "ethprice", "ETH/USDT", 40, 0),
    ]
    verdict = judge(record(BORNE, *polled))
    assert (verdict.lost, verdict.problems) == (1, ("1 messages lost",))


def test_a_message_that_is_missing_since_the_case_before() -> None:
    before = {("bitcoinprice", "BTC/USDT"): Data(BEGAN_S - 1, "bitcoinprice", "BTC/USDT", 10, 0)}
    here = Data(BEGAN_S, "bitcoinprice", "BTC/USDT", 30, 20)
    assert judge(record(BORNE, here, push(0.1, 1, "ethprice"), before=before)).lost == 1
    follows = replace(here, prev_seq=10)
    assert judge(record(BORNE, follows, push(0.1, 1, "ethprice"), before=before)).lost == 0


def test_a_push_that_the_daemon_swallowed() -> None:
    swallowed = [push(0.0, 1), push(0.2, 2), replace(push(0.6, 4), prev_seq=20), push(0.1, 1, "ethprice")]
    assert judge(record(BORNE, *swallowed)).lost == 1


def test_pushes_during_an_outage_are_nobodys_to_get() -> None:
    entries = [push(0.0, 1), *outage(), replace(push(1.2, 9), prev_seq=10), push(1.2, 1, "ethprice")]
    assert judge(record(BROKEN, *entries)).lost == 0


def test_a_push_swallowed_before_an_outage_or_after_it() -> None:
    entries = [
        *(push(0.0, 1), replace(push(0.2, 3), prev_seq=10), push(0.2, 1, "ethprice")),
        *outage(),
        *(replace(push(1.2, 9), prev_seq=30), replace(push(1.4, 11), prev_seq=90), push(1.4, 3, "ethprice", 20)),
    ]
    assert judge(record(BROKEN, *entries)).lost == 2


def test_pushes_that_change_places_are_not_lost() -> None:
    entries = [push(0.0, 1), push(0.2, 3, seq=20), push(0.3, 2, seq=30), push(0.1, 1, "ethprice")]
    assert judge(record(BORNE, *entries)).is_well


def test_a_message_that_comes_again() -> None:
    verdict = judge(record(BORNE, *pushes(1, 2), push(0.7, 2)))
    assert verdict.doubled
    assert not verdict.is_well


def test_a_push_that_is_published_twice() -> None:
    again = replace(push(0.7, 2, seq=30), stamp=1_002)
    assert judge(record(BORNE, *pushes(1, 2), again)).problems == ("1 messages doubled",)
    before = {("bitcoinprice", "BTC/USDT"): push(-0.2, 2, seq=10)}
    assert judge(record(BORNE, push(0.1, 2, seq=20), push(0.1, 1, "ethprice"), before=before)).doubled == 1


def test_a_venue_that_doubles_is_not_held_against_the_daemon() -> None:
    twice = Case(f.Duplicates(venue="okx"), TOLD_NOTHING)
    second, third = push(0.6, 2, seq=30), replace(push(0.7, 2, seq=40), prev_seq=30)
    assert judge(record(twice, *pushes(1, 2), second)).is_well
    assert judge(record(twice, *pushes(1, 2), second, third)).doubled == 1


def test_other_venues_that_are_told_to_be_in_trouble_or_do_not_deliver() -> None:
    assert judge(record(BORNE, *pushes(1), told(0.4, "binance_prices", "stale", "no message"))).disturbed == (
        "binance_prices",
    )
    silent = record(BORNE, *pushes(1))
    silent.entries = pushes(1)
    assert judge(silent).problems == ("disturbed: binance_prices",)


def test_what_has_not_recovered_and_said_when_or_did_not() -> None:
    assert judge(record(BROKEN, *pushes(1), *outage()[:2], recovered_s=None)).problems == ("not recovered",)
    promised = judge(record(BROKEN, *pushes(1), *outage()[:2], recovered_s=None, promised_s=59.0))
    assert promised.is_well
    assert (promised.recover_s, promised.promised_s) == (None, 59.0)


def test_a_daemon_that_is_down_or_logs_an_error() -> None:
    down = judge(record(BROKEN, *well(), failure="the daemon is down: it ended with 1"))
    assert (down.up, down.problems) == (False, ("the daemon is down: it ended with 1",))
    error = LogLine(BEGAN_MS, "error", "okx failed KeyError: 'x'")
    assert judge(record(BROKEN, *well(), log=[error])).problems == (
        "the daemon logged an error: okx failed KeyError: 'x'",
    )


def test_a_connection_that_is_cut_off_to_have_another_one_is_not_the_fault() -> None:
    mute = Case(f.Mute(venue="okx"), TOLD_BROKEN)
    assert judge(record(mute, *well())).problems == ("clients were told nothing, not down or reconnecting",)
    again = [*pushes(1), *outage(0.1), *outage(2.5), *pushes(9, start_s=4.0, after=1)]
    verdict = judge(record(mute, *again, recovered_s=5.0))
    assert verdict.is_well
    assert verdict.notice_s == pytest.approx(1.9)


def test_a_remark_is_a_reason_beside_live() -> None:
    part = Case(f.Delisted(venue="okx", instrument="BTC/USDT"), TOLD_REMARK)
    remark = told(0.4, "bitcoinprice", "live", "unknown to OKX: BTC/USDT")
    assert judge(record(part, *pushes(1, 2), remark)).is_well
    assert judge(record(part, *pushes(1, 2), replace(remark, reason=""))).problems == (
        "clients were told nothing, not live",
    )


# A disk that takes nothing.


def disk(*entries: Entry, **more: object) -> DiskRecord:
    """One of which nobody noticed anything, unless told otherwise."""
    made = DiskRecord(
        channels=OKX,
        entries=entries or pushes(1, 2, 3),
        log=[LogLine(BEGAN_MS, "error", f"tape cannot be written: disk I/O error; {DISK_LINE}. Trying again")],
        began_s=BEGAN_S,
        began_ms=BEGAN_MS,
        cleared_s=BEGAN_S + 1,
        noticed_s=BEGAN_S + 0.5,
        recovered_s=BEGAN_S + 2,
        reason="the tape is not stored",
    )
    return replace(made, **more)


def test_a_disk_that_takes_nothing_is_well_where_no_client_notices_and_whoever_looks_is_told() -> None:
    verdict = judge_disk(disk())
    assert verdict.is_well, verdict.problems
    assert (verdict.fault, verdict.notice_s, verdict.recover_s) == ("tickerd full_disk", 0.5, 1.0)
    assert (verdict.reason, verdict.told) == ("the tape is not stored", ())


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (disk(noticed_s=None), "/readyz did not say"),
        (disk(recovered_s=None), "not recovered"),
        (disk(log=[]), "the log says 0 times"),
        (disk(log=[LogLine(BEGAN_MS, "error", DISK_LINE)] * 2), "the log says 2 times"),
        (
            disk(log=[*disk().log, LogLine(BEGAN_MS, "error", "something else")]),
            "the daemon logged an error: something",
        ),
        (disk(*pushes(1, 2), *pushes(4, start_s=0.5, after=3)), "messages lost"),
        (disk(*pushes(1, 2), *pushes(2, start_s=0.5)), "messages doubled"),
        (disk(*pushes(1, 2), told(0.5, "ethprice", "stale")), "disturbed: ethprice"),
        (disk(push(0.1, 1)), "disturbed: ethprice"),
        (disk(failure="the daemon is down"), "the daemon is down"),
    ],
)
def test_whatever_goes_wrong_with_a_disk_that_takes_nothing_is_seen(record: DiskRecord, problem: str) -> None:
    verdict = judge_disk(record)
    assert not verdict.is_well
    assert any(problem in each for each in verdict.problems), verdict.problems
