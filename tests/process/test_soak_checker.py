"""The soak's judge finds what it is there to find, and takes nothing for it that the contract allows."""

import msgspec
import pytest

from tests.soak.checker import Checker, Offence
from tests.soak.record import Got, Joined, Lagged, Left, Mark, Session, Topic
from tests.soak.reference import Reference, packed

BTC: Topic = ("prices", "BTC/USDT")
ETH: Topic = ("prices", "ETH/USDT")
MARKET: Topic = ("market", "")


def payload(topic: Topic, seq: int, prev_seq: int) -> bytes:
    return f'{{"type":"price_update","connector_id":"{topic[0]}","seq":{seq},"prev_seq":{prev_seq}}}'.encode()


@pytest.fixture(scope="module")
def reference() -> Reference:
    """BTC at 1, 4, 7, ... 58; ETH at 2, 5, ... 59; the market at 30 and 60. 3, 6, ... are states of connectors."""
    reference = Reference()
    last: dict[Topic, int] = {}
    for seq in range(1, 61):
        topic = MARKET if seq in (30, 60) else {1: BTC, 2: ETH}.get(seq % 3)
        if topic is not None:
            reference.add(topic, seq, last.get(topic, 0), payload(topic, seq, last.get(topic, 0)))
            last[topic] = seq
    return reference


def prev(reference: Reference, topic: Topic, seq: int) -> int:
    return reference.previous(topic, seq)


def session(reference: Reference, *entries: Mark | tuple[Topic, int], number: int = 1) -> Session:
    """A session with these answers, and whole messages of the tape."""
    made = Session(7, number, "json")
    for entry in entries:
        if isinstance(entry, tuple) and not isinstance(entry, Got):
            topic, seq = entry
            before = prev(reference, topic, seq)
            made.got(topic, seq, before, hash(payload(topic, seq, before)))
        else:
            made.mark(entry)
    return made


def judged(reference: Reference, *sessions: Session) -> Checker:
    checker = Checker(reference)
    checker.client(sessions)
    return checker


def kinds(offences: list[Offence]) -> list[str]:
    return [offence.kind for offence in offences]


JOIN = Joined(channels=("prices",), seq=12)
SNAPSHOT = ((BTC, 10), (ETH, 11))


def test_a_client_that_got_everything_is_in_order(reference: Reference) -> None:
    whole = session(reference, JOIN, *SNAPSHOT, (BTC, 13), (ETH, 14), (BTC, 16), (ETH, 17))
    whole.complete_to = 18
    checker = judged(reference, whole)
    assert checker.offences == []
    assert (checker.messages, checker.sessions, sum(checker.explained.values())) == (6, 1, 0)


def test_a_hole_is_found(reference: Reference) -> None:
    offences = judged(reference, session(reference, JOIN, *SNAPSHOT, (BTC, 13), (BTC, 19), (BTC, 22))).offences
    assert kinds(offences) == ["hole"]
    assert (offences[0].topic, offences[0].seq, offences[0].client) == (BTC, 19, 7)
    assert "1 messages are missing" in offences[0].detail


def test_a_missing_snapshot_is_a_hole(reference: Reference) -> None:
    assert kinds(judged(reference, session(reference, JOIN, (BTC, 13))).offences) == ["hole"]


def test_a_double_and_disorder_are_found(reference: Reference) -> None:
    doubled = session(reference, JOIN, *SNAPSHOT, (BTC, 13), (BTC, 13))
    assert kinds(judged(reference, doubled).offences) == ["double"]
    swapped = session(reference, JOIN, *SNAPSHOT, (BTC, 16), (BTC, 13))
    assert kinds(judged(reference, swapped).offences) == ["hole", "disorder"]


def test_what_the_witness_did_not_have_is_found(reference: Reference) -> None:
    made = session(reference, JOIN, *SNAPSHOT)
    made.got(BTC, 13, 10, hash(b"another"))
    made.got(BTC, 15, 13, hash(b"nobody had this"))
    assert kinds(judged(reference, made).offences)[:2] == ["altered", "unknown"]


def test_the_right_message_in_the_wrong_format_is_altered(reference: Reference) -> None:
    made = Session(7, 1, "msgpack")
    made.mark(JOIN)
    made.got(BTC, 10, 7, hash(packed(payload(BTC, 10, 7))))
    made.got(ETH, 11, 8, hash(payload(ETH, 11, 8)))
    assert kinds(judged(reference, made).offences) == ["altered"]


def test_packed_has_the_digits_of_the_price_as_text() -> None:
    message = msgspec.msgpack.decode(packed(b'{"type":"price_update","price":42150.50,"data":{"a":[1,2.5]}}'))
    assert message == {"type": "price_update", "price": "42150.50", "data": {"a": [1, 2.5]}}


def test_a_message_that_was_not_asked_for_is_found(reference: Reference) -> None:
    left = session(reference, JOIN, *SNAPSHOT, Left(("prices",)), (BTC, 13))
    assert kinds(judged(reference, left).offences) == ["unasked"]
    filtered = session(reference, Joined(channels=("prices",), seq=12, instruments=(BTC[1],)), (BTC, 10), (ETH, 11))
    assert kinds(judged(reference, filtered).offences) == ["unasked"]


def test_a_tail_that_never_came_is_found(reference: Reference) -> None:
    made = session(reference, JOIN, *SNAPSHOT, (BTC, 13), (BTC, 16))
    made.complete_to = 18
    offences = judged(reference, made).offences
    assert kinds(offences) == ["never came"]
    assert offences[0].topic == ETH


def test_commands_without_an_answer_and_remarks_are_offences(reference: Reference) -> None:
    made = session(reference)
    made.unanswered = ("ping",)
    made.remarks.append("closed for nothing")
    assert kinds(judged(reference, made).offences) == ["unanswered", "remark"]


def test_lagged_explains_exactly_what_it_counts(reference: Reference) -> None:
    def lagged(missed: int, *after: tuple[Topic, int]) -> Checker:
        return judged(reference, session(reference, JOIN, *SNAPSHOT, Lagged(missed, 13, 24), *after))

    # Missing are 13, 16, 19 of BTC and 14, 17, 20 of ETH; 22 and 23 are the newest and follow.
    right = lagged(6, (BTC, 22), (ETH, 23), (BTC, 25))
    assert right.offences == []
    assert right.explained == {"lagged": 6}
    assert kinds(lagged(5, (BTC, 22), (ETH, 23)).offences) == ["miscounted"]
    assert kinds(lagged(6, (BTC, 25)).offences) == ["hole"], "the newest message must follow"
    late = judged(reference, session(reference, JOIN, *SNAPSHOT, Lagged(6, 15, 24), (BTC, 22), (ETH, 23)))
    assert kinds(late.offences) == ["hole", "hole"], "what lies before from_seq is not explained"


def test_lagged_explains_nothing_of_channels_that_it_does_not_name(reference: Reference) -> None:
    join = Joined(channels=("prices", "market"), seq=29)
    had = ((BTC, 28), (ETH, 29), (MARKET, 30))

    def lagged(by_channel: dict[str, int], *after: tuple[Topic, int]) -> Checker:
        return judged(reference, session(reference, join, *had, Lagged(18, 31, 59, by_channel), *after))

    assert lagged({"prices": 18}, (BTC, 58), (ETH, 59), (MARKET, 60)).offences == []
    wrong = lagged({"market": 18}, (BTC, 58), (ETH, 59), (MARKET, 60)).offences
    assert kinds(wrong) == ["miscounted", "hole", "hole"]


def test_an_interval_explains_what_it_leaves_out_but_no_disorder(reference: Reference) -> None:
    slow = Joined(channels=("prices",), seq=12, interval_ms=500)
    right = judged(reference, session(reference, slow, *SNAPSHOT, (BTC, 19), (ETH, 20)))
    assert right.offences == []
    assert right.explained["interval"] == 4
    wrong = judged(reference, session(reference, slow, *SNAPSHOT, (BTC, 19), (BTC, 16)))
    assert kinds(wrong.offences) == ["disorder"]


def test_whoever_leaves_an_interval_goes_on_with_the_newest_message(reference: Reference) -> None:
    slow = Joined(channels=("prices",), seq=12, interval_ms=500)
    fast = Joined(channels=("prices",), seq=24)
    right = judged(reference, session(reference, slow, *SNAPSHOT, fast, (BTC, 22), (ETH, 23), (BTC, 25)))
    assert right.offences == []
    wrong = judged(reference, session(reference, slow, *SNAPSHOT, fast, (BTC, 25)))
    assert kinds(wrong.offences) == ["hole"]


def test_a_topic_that_was_taken_already_keeps_its_place(reference: Reference) -> None:
    again = Joined(channels=("prices", "market"), seq=24)
    right = session(reference, JOIN, *SNAPSHOT, again, (BTC, 13), (ETH, 14), (BTC, 16))
    assert judged(reference, right).offences == []
    wrong = session(reference, JOIN, *SNAPSHOT, again, (BTC, 22))
    assert kinds(judged(reference, wrong).offences) == ["hole"]


def test_without_a_snapshot_the_next_message_is_the_first(reference: Reference) -> None:
    bare = Joined(channels=("prices",), seq=12, snapshot=False)
    assert judged(reference, session(reference, bare, (BTC, 13), (ETH, 14))).offences == []
    assert kinds(judged(reference, session(reference, bare, (BTC, 10))).offences) == ["disorder"]


def resumed(recovered: bool, *, missed: int | None = None) -> Joined:
    counts = {} if missed is None else {"prices": missed}
    return Joined(channels=("prices",), seq=24, since=14, honest=True, recovered={"prices": recovered}, missed=counts)


def test_a_resume_is_followed_by_exactly_what_was_missed(reference: Reference) -> None:
    first = session(reference, JOIN, *SNAPSHOT, (BTC, 13), (ETH, 14))
    right = session(reference, resumed(True), (BTC, 16), (ETH, 17), (BTC, 19), number=2)
    assert judged(reference, first, right).offences == []
    skipping = session(reference, resumed(True), (BTC, 19), number=2)
    assert kinds(judged(reference, first, skipping).offences) == ["hole"]
    repeating = session(reference, resumed(True), (BTC, 13), number=2)
    assert kinds(judged(reference, first, repeating).offences) == ["disorder"]


def test_what_had_not_come_before_the_position_is_a_hole_across_sessions(reference: Reference) -> None:
    # ETH 14 came, and so a client resumes behind it: but BTC 13 never had.
    first = session(reference, JOIN, *SNAPSHOT, (ETH, 14))
    offences = judged(reference, first, session(reference, resumed(True), (BTC, 16), number=2)).offences
    assert kinds(offences) == ["hole"]
    assert (offences[0].topic, offences[0].session) == (BTC, 2)


def test_a_refused_resume_explains_a_hole_and_its_count_is_checked(reference: Reference) -> None:
    first = session(reference, JOIN, *SNAPSHOT, (BTC, 13), (ETH, 14))
    # Missing are 16 and 19, and 17 and 20; 22 and 23 follow.
    for missed, found in ((4, []), (3, ["miscounted"]), (None, [])):
        second = session(reference, resumed(False, missed=missed), (BTC, 22), (ETH, 23), (BTC, 25), number=2)
        checker = judged(reference, first, second)
        assert kinds(checker.offences) == found
        assert checker.explained == {"recovered:false": 4}
    neither = session(reference, resumed(False), (BTC, 19), number=2)
    assert kinds(judged(reference, first, neither).offences) == ["hole"]


@pytest.mark.parametrize(("missed", "found"), [(4, []), (3, ["miscounted"]), (5, ["miscounted"])])
def test_an_interval_taken_before_the_newest_message_has_come_may_leave_that_out(
    reference: Reference, missed: int, found: list[str]
) -> None:
    """What was counted as missed stops at the newest message; what the interval left out begins with it."""
    first = session(reference, JOIN, *SNAPSHOT, (BTC, 13), (ETH, 14))
    slower = Joined(channels=("prices",), seq=24, interval_ms=50, snapshot=False)
    second = session(reference, resumed(False, missed=missed), slower, (BTC, 28), (ETH, 29), (BTC, 34), number=2)
    checker = judged(reference, first, second)
    assert kinds(checker.offences) == found
    assert checker.explained == {"recovered:false": 4, "interval": 5}


def test_a_client_that_lags_before_the_newest_message_has_come_is_told_of_the_later_ones_only(
    reference: Reference,
) -> None:
    # 22 and 23 were to follow; BTC 25, 28 and ETH 26, 29 came meanwhile, and 31 and 32 are the newest.
    first = session(reference, JOIN, *SNAPSHOT, (BTC, 13), (ETH, 14))
    for missed, found in ((6, []), (5, ["miscounted"]), (11, ["miscounted"])):
        second = session(
            reference, resumed(False, missed=4), Lagged(missed, 20, 33), (BTC, 31), (ETH, 32), (BTC, 34), number=2
        )
        assert kinds(judged(reference, first, second).offences) == found


def test_a_position_of_another_tape_explains_everything_up_to_the_snapshot(reference: Reference) -> None:
    strange = Joined(channels=("prices",), seq=24, since=7, known=False, recovered={"prices": False})
    assert judged(reference, session(reference, strange, (BTC, 22), (ETH, 23), (BTC, 25))).offences == []


def test_what_is_older_than_the_witnesses_is_taken_as_it_is() -> None:
    late = Reference()
    late.add(BTC, 10, 7, payload(BTC, 10, 7))
    made = Session(7, 1, "json")
    made.mark(Joined(channels=("prices",), seq=12, since=2, recovered={"prices": True}))
    for seq, prev_seq in ((4, 1), (7, 4)):
        made.got(BTC, seq, prev_seq, hash(b"nobody knows"))
    made.got(BTC, 10, 7, hash(payload(BTC, 10, 7)))
    assert judged(late, made).offences == []


def test_a_reference_with_a_broken_chain_says_so(reference: Reference) -> None:
    assert reference.broken == []
    broken = Reference()
    broken.add(BTC, 1, 0, b"{}")
    broken.add(BTC, 5, 3, b"{}")
    assert len(broken.broken) == 1
