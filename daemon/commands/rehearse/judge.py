"""Whether one rehearsed fault ended well, judged by what the clients were told. Pure.

A `Record` is what the clients of one daemon noted from the moment before a fault to its end. What has to hold:

* the daemon is up, still has its clients, and logged no error;
* clients are told a state that the fault's case expects (`live`: a remark beside it), within `TOLD_S` of the daemon's
  noticing it; where nothing is expected they have data all the while, and are told nothing but `live`. No channel is
  without data for `QUIET_S` without a word;
* the other venues' channels stay live and deliver;
* each topic's messages follow on each other by `prev_seq`. A push that the venue made once comes once; and none of
  those is missing that the venue made while its channel was live;
* all channels deliver again once the fault is over, or say when they will.

A `DiskRecord` goes from the moment before the daemon's disk takes nothing more to when it does again: clients must
notice nothing of that, and the operator must be told.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from connectors.base import State
from connectors.simulator.faults.faults import Duplicates, Fault, Opening
from connectors.simulator.faults.table import Case
from daemon.commands.rehearse.records import Data, DiskRecord, Noted, Record, Told, Topic

TOLD_S: Final = 1.0
"""The wire contract's third promise: the time from when the daemon notices a state until clients are told."""

QUIET_S: Final = 4.0
"""A channel without data for this long must not be called live: longer than any freshness limit here (2.5 s)."""

FULL_DISK: Final = "tickerd full_disk"
"""The daemon's own fault: the disk takes nothing of its tape."""

DISK_LINE: Final = "what is sent is not stored"
"""In the one line that the daemon logs about that."""

TROUBLE: Final[frozenset[State]] = frozenset({"stale", "reconnecting", "down"})


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the table.

    Attributes:
        fault: The case's title.
        told: The states that clients were told, each once, in order.
        reason: The last one that they were told with a state of trouble, or with anything.
        notice_s: From when the daemon met the fault to the first client's knowing.
        told_s: From the daemon's noticing to the clients' knowing; the longest of the channels.
        recover_s: From the fault's end to data on all channels.
        promised_s: As in `Record`, where it has not recovered yet.
        lost: Messages that clients had to get and did not.
        doubled: Messages that they got again.
        disturbed: Other venues' channels that suffered.
        up: Whether the daemon runs, with all its clients.
        problems: What is wrong, in words; empty where all is well.
    """

    fault: str
    told: tuple[State, ...] = ()
    reason: str = ""
    notice_s: float | None = None
    told_s: float | None = None
    recover_s: float | None = None
    promised_s: float | None = None
    lost: int = 0
    doubled: int = 0
    disturbed: tuple[str, ...] = ()
    up: bool = True
    problems: tuple[str, ...] = ()

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def judge(record: Record) -> Verdict:
    """See the module."""
    told = _told(record)
    met_s = meets_s(record.case.fault, told, record.began_s)
    troubles = [one for one in told if one.state in TROUBLE and one.at_s >= met_s]
    remarks = [one for one in told if one.reason and one.at_s >= met_s]
    words = [one.reason for one in troubles if one.reason] or [one.reason for one in remarks]
    first = next((one for one in told if one.at_s >= met_s and is_expected(record.case, one)), None)
    fault = record.case.fault
    again = doubled(record, 1 + (fault.copies if isinstance(fault, Duplicates) else 0))
    lost = holes(record) + missing(record)
    disturbed = tuple(_disturbed(record))
    told_s = max(_lateness(record, troubles), default=None)
    return Verdict(
        fault=record.case.title,
        told=tuple(dict.fromkeys(one.state for one in told)),
        reason=words[-1] if words else "",
        notice_s=None if first is None else first.at_s - met_s,
        told_s=told_s,
        recover_s=None if record.recovered_s is None else _back_s(record) - record.cleared_s,
        promised_s=record.promised_s if record.recovered_s is None else None,
        lost=lost,
        doubled=again,
        disturbed=disturbed,
        up=not record.failure,
        problems=(
            *([record.failure] if record.failure else []),
            *errors(record),
            *([] if first is not None else _not_told(record, troubles)),
            *_wrongly_told(record, troubles),
            *([f"told {told_s:.1f} s after it was noticed"] if told_s is not None and told_s > TOLD_S else []),
            *_quiet(record),
            *([f"{lost} messages lost"] if lost else []),
            *([f"{again} messages doubled"] if again else []),
            *([f"disturbed: {', '.join(disturbed)}"] if disturbed else []),
            *(["not recovered"] if record.recovered_s is None and record.promised_s is None else []),
        ),
    )


def judge_disk(record: DiskRecord) -> Verdict:
    """Clients must notice nothing, and the operator must be told: in `/readyz`, and once in the log."""
    during = [entry for entry in record.entries if entry.at_s >= record.began_s]
    told = [entry for entry in during if isinstance(entry, Told) and entry.channel in record.channels]
    heard = {entry.channel for entry in during if isinstance(entry, Data)}
    disturbed = {one.channel for one in told if one.state != "live"} | (set(record.channels) - heard)
    again, lost = doubled(record), holes(record) + missing(record)
    logged = errors(record, but=DISK_LINE)
    lines = sum(DISK_LINE in line.text for line in record.log)
    return Verdict(
        fault=FULL_DISK,
        told=tuple(dict.fromkeys(one.state for one in told)),
        reason=record.reason,
        notice_s=None if record.noticed_s is None else record.noticed_s - record.began_s,
        recover_s=None if record.recovered_s is None else record.recovered_s - record.cleared_s,
        lost=lost,
        doubled=again,
        disturbed=tuple(sorted(disturbed)),
        up=not record.failure,
        problems=(
            *([record.failure] if record.failure else []),
            *logged,
            *([] if record.noticed_s is not None else ["/readyz did not say that the tape is not stored"]),
            *([] if lines == 1 else [f"the log says {lines} times that the tape is not stored"]),
            *([f"{lost} messages lost"] if lost else []),
            *([f"{again} messages doubled"] if again else []),
            *([f"disturbed: {', '.join(sorted(disturbed))}"] if disturbed else []),
            *(["not recovered"] if record.recovered_s is None else []),
        ),
    )


def meets_s(fault: Fault, told: Sequence[Told], began_s: float) -> float:
    """When the daemon met the fault: what connections meet as they open, it meets with its next attempt to connect.

    To have one, the simulator cuts off the connection that there is. Clients are told that too, but it is not the
    fault. Infinite, where there was no attempt.
    """
    if not (isinstance(fault, Opening) and fault.venue == "okx" and fault.drop):
        return began_s
    return min((one.at_s for one in told if one.state == "connecting"), default=math.inf)


def is_expected(case: Case, one: Told) -> bool:
    """Whether clients must be told this. `live` counts only with a reason, because every channel ends up live."""
    return one.state in case.expects and (one.state != "live" or bool(one.reason))


def _told(record: Record) -> list[Told]:
    """What clients were told of the venue's channels since the fault began."""
    told = (entry for entry in record.entries if isinstance(entry, Told))
    return [one for one in told if one.channel in record.channels and one.at_s >= record.began_s]


def _data(record: Noted) -> list[Data]:
    return [entry for entry in record.entries if isinstance(entry, Data)]


def errors(record: Noted, but: str | None = None) -> list[str]:
    """Log lines that a daemon has no reason to write if it copes, except those with that text."""
    lines = [line for line in record.log if but is None or but not in line.text]
    found = [line.text for line in lines if line.level in ("error", "critical") or "Traceback" in line.text]
    return [f"the daemon logged an error: {text}" for text in found[:1]]


def _back_s(record: Record) -> float:
    """When the last of the venue's topics had data again, of those that had any: after the fault, and after trouble."""
    well_s = dict.fromkeys(record.channels, record.cleared_s)
    for one in _told(record):
        if one.state in TROUBLE:
            well_s[one.channel] = max(well_s[one.channel], one.at_s)
    back_s: dict[Topic, float] = {}
    for data in _data(record):
        if data.channel in well_s and data.at_s >= well_s[data.channel]:
            back_s.setdefault(data.topic, data.at_s)
    return max(back_s.values(), default=record.cleared_s)


def _not_told(record: Record, troubles: Sequence[Told]) -> Iterator[str]:
    expected = record.case.expects
    if expected:
        said = ", ".join(sorted({one.state for one in troubles})) or "nothing"
        yield f"clients were told {said}, not {' or '.join(sorted(expected))}"


def _wrongly_told(record: Record, troubles: Sequence[Told]) -> Iterator[str]:
    """Trouble, or missing data, although the daemon should cope."""
    if record.case.expects & TROUBLE:
        return
    if troubles:
        said = ", ".join(sorted({one.state for one in troubles}))
        yield f"clients were told {said}, where the data was not to suffer"
    heard = {data.channel for data in _data(record) if record.began_s <= data.at_s}
    for channel in sorted(set(record.channels) - heard):
        yield f"{channel} had no data, where it was not to suffer"


def _lateness(record: Record, troubles: Sequence[Told]) -> Iterator[float]:
    """By channel: the delay since the log first gives the reason, for the connector or for the channel."""
    seen: set[str] = set()
    for one in troubles:
        if one.channel in seen or not one.reason:
            continue
        seen.add(one.channel)
        names = (f"{one.channel}: ", f"{record.case.fault.venue}: ")
        lines = [line.at_ms for line in record.log if line.text.startswith(names) and one.reason in line.text]
        # The log's times are whole milliseconds, cut off.
        noticed_ms = min((at_ms for at_ms in lines if record.began_ms - 1 <= at_ms <= one.at_ms), default=one.at_ms)
        late_s = (one.at_ms - noticed_ms) / 1000
        yield _awake_s(record, one.at_s - late_s, one.at_s)


def _quiet(record: Record) -> Iterator[str]:
    """The venue's channels that had no data for too long without a status that says so."""
    end_s = record.recovered_s or max((e.at_s for e in record.entries), default=record.began_s)
    for channel in record.channels:
        heard_s = record.began_s
        live = True
        for entry in record.entries:
            if entry.channel != channel or not record.began_s <= entry.at_s <= end_s:
                continue
            if live and _awake_s(record, heard_s, entry.at_s) > QUIET_S:
                break
            heard_s = entry.at_s
            live = entry.state == "live" if isinstance(entry, Told) else True
        else:
            if not live or _awake_s(record, heard_s, end_s) <= QUIET_S:
                continue
        yield f"{channel} was silent for over {QUIET_S:g} s, and called live"


def _awake_s(record: Noted, since_s: float, until_s: float) -> float:
    """How much of that time the clients were able to notice anything."""
    overlaps = (min(one.ended_s, until_s) - max(one.began_s, since_s) for one in record.standstills)
    return until_s - since_s - sum(max(0.0, overlap) for overlap in overlaps)


def _disturbed(record: Record) -> Iterator[str]:
    """Other venues' channels that were told to be in trouble, or had no data while the fault lasted."""
    for channel in record.others:
        mine = [entry for entry in record.entries if entry.channel == channel and entry.at_s >= record.began_s]
        in_trouble = any(isinstance(entry, Told) and entry.state != "live" for entry in mine)
        if in_trouble or not any(isinstance(entry, Data) for entry in mine):
            yield channel


def holes(record: Noted) -> int:
    """How often a message did not follow the previous one of its topic, or came out of order."""
    places = {topic: data.seq for topic, data in record.before.items()}
    count = 0
    for data in _data(record):
        place = places.get(data.topic)
        count += place is not None and data.seq > place and data.prev_seq != place
        places[data.topic] = max(place or 0, data.seq)
    return count


def doubled(record: Noted, copies: int = 1) -> int:
    """Messages that came again: by `seq`, or as the same push more often than the venue made it."""
    places = {topic: data.seq for topic, data in record.before.items()}
    stamps = Counter((d.topic, d.stamp) for d in record.before.values() if d.stamp is not None)
    again = 0
    for data in _data(record):
        again += data.seq <= places.get(data.topic, 0)
        places[data.topic] = max(places.get(data.topic, 0), data.seq)
        if data.stamp is not None:
            stamps[data.topic, data.stamp] += 1
    return again + sum(max(0, count - copies) for count in stamps.values())


def missing(record: Noted) -> int:
    """Pushes that the venue made, and that no client got, though their channel was live before and after."""
    runs: dict[Topic, set[int]] = {
        topic: {data.number} for topic, data in record.before.items() if data.number is not None
    }
    missing = 0
    for entry in record.entries:
        if isinstance(entry, Data):
            if entry.number is not None:
                runs.setdefault(entry.topic, set()).add(entry.number)
        elif entry.state in TROUBLE:
            for topic in [topic for topic in runs if topic[0] == entry.channel]:
                missing += _gaps(runs.pop(topic))
    return missing + sum(map(_gaps, runs.values()))


def _gaps(numbers: set[int]) -> int:
    return max(numbers) - min(numbers) + 1 - len(numbers)
