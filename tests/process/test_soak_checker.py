"""The soak's judge finds what it is there to find, and takes nothing for it that the contract allows."""

import msgspec
import pytest

from tests.soak.book import Book, Levels
from tests.soak.checker import Checker, Offence
from tests.soak.record import Got, Held, Joined, Keyframe, Lagged, Left, Mark, Refused, Session, Topic
from tests.soak.reference import Reference, packed, shortest

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


def test_what_is_due_after_the_client_left_was_not_to_come(reference: Reference) -> None:
    for interval_ms, found in ((2000, ["never came"]), (2001, [])):
        made = session(reference, Joined(channels=("prices",), seq=12, interval_ms=interval_ms))
        made.complete_to, made.longest_ms = 20, 2000
        assert kinds(judged(reference, made).offences)[:1] == found


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


def test_nobody_counts_what_is_older_than_the_witnesses() -> None:
    late = Reference()
    for seq, prev_seq in ((10, 7), (13, 10), (16, 13), (19, 16)):
        late.add(BTC, seq, prev_seq, payload(BTC, seq, prev_seq))

    def lagged(told: int, *had: int) -> list[str]:
        made = Session(7, 1, "json")
        made.mark(Joined(channels=("prices",), seq=12, since=had[0] - 1, recovered={"prices": True}))
        for seq in had:
            made.got(BTC, seq, seq - 3, hash(payload(BTC, seq, seq - 3)))
        made.mark(Lagged(told, had[-1] + 1, 18, {"prices": told}))
        made.got(BTC, 16, 13, hash(payload(BTC, 16, 13)))
        return kinds(judged(late, made).offences)

    # 7, 10 and 13 are missing, and no witness was there at 7.
    assert lagged(3, 4) == []
    assert lagged(2, 4, 7) == []
    assert lagged(3, 4, 7) == ["miscounted"]


def test_a_reference_with_a_broken_chain_says_so(reference: Reference) -> None:
    assert reference.broken == []
    broken = Reference()
    broken.add(BTC, 1, 0, b"{}")
    broken.add(BTC, 5, 3, b"{}")
    assert len(broken.broken) == 1


# ---- books ----------------------------------------------------------------------------------------------------------

DEEP: Topic = ("depth", "BTC/USDT")
THIN: Topic = ("depth", "ETH/USDT")
BIDS, ASKS = [("100.0", "1"), ("99.0", "2")], [("101.0", "1")]


def depth_message(
    topic: Topic, seq: int, prev_seq: int, bids: Levels, asks: Levels = (), *, reset: bool = False
) -> bytes:
    type_ = "depth_snapshot" if reset else "depth_update"
    message = {"type": type_, "connector_id": topic[0], "seq": seq, "prev_seq": prev_seq, "bids": bids, "asks": asks}
    return msgspec.json.encode(message | ({"reset": True} if reset else {}))


def book_at(seq: int) -> Book:
    """BTC's book: the best bid's quantity is the position."""
    book = Book()
    book.begin(seq, [("100.0", str(seq)), ("99.0", "2")], ASKS)
    return book


@pytest.fixture(scope="module")
def deep() -> Reference:
    """BTC's book begins at 1, changes at 4, 7, ... 28, begins anew at 31, changes until 58. ETH's begins at 2."""
    reference = Reference()
    last: dict[Topic, int] = {}
    for seq in range(1, 60):
        topic = {1: DEEP, 2: THIN, 0: BTC}[seq % 3]
        before = last.get(topic, 0)
        if topic is BTC:
            raw = payload(topic, seq, before)
        elif seq in (1, 2, 31):
            raw = depth_message(topic, seq, before, [("100.0", str(seq)), ("99.0", "2")], ASKS, reset=True)
        else:
            raw = depth_message(topic, seq, before, [("100.0", str(seq))])
        reference.add(topic, seq, before, raw)
        last[topic] = seq
    assert reference.broken == []
    return reference


def deep_session(reference: Reference, *entries: Mark | tuple[Topic, int]) -> Session:
    made = Session(7, 1, "json")
    for entry in entries:
        if isinstance(entry, tuple):
            topic, seq = entry
            made.got(topic, seq, reference.previous(topic, seq), reference.digest(seq, "json") or 0)
        else:
            made.mark(entry)
    return made


def keyframe(topic: Topic, seq: int, through: int) -> Keyframe:
    return Keyframe(topic, seq, through, through, book_at(through).digest)


def deep_kinds(reference: Reference, *entries: Mark | tuple[Topic, int], to: int | None = None) -> list[str]:
    made = deep_session(reference, *entries)
    made.complete_to = to
    return kinds(judged(reference, made).offences)


LATE = Joined(channels=("depth",), seq=20)
BOTH = (keyframe(DEEP, 15, 13), keyframe(THIN, 18, 17), (DEEP, 16), (DEEP, 19), (THIN, 20))


def test_a_late_comer_gets_a_keyframe_and_every_change_since(deep: Reference) -> None:
    whole = deep_session(deep, LATE, *BOTH, (DEEP, 22), Held(DEEP, 22, book_at(22).digest), (THIN, 23))
    whole.complete_to = 24
    checker = judged(deep, whole)
    assert checker.offences == []
    assert checker.books == 3
    assert sum(checker.explained.values()) == 0


def test_a_late_comer_may_also_begin_where_the_book_began(deep: Reference) -> None:
    joined = Joined(channels=("depth",), instruments=(DEEP[1],), seq=36)
    assert deep_kinds(deep, joined, (DEEP, 31), (DEEP, 34), (DEEP, 37), to=37) == []


def test_changes_without_a_book_are_found(deep: Reference) -> None:
    assert deep_kinds(deep, LATE, (DEEP, 22), (THIN, 20)) == ["no book", "no book"]
    assert deep_kinds(deep, LATE, keyframe(DEEP, 15, 13), (DEEP, 16), (DEEP, 19), to=20) == ["never came"]
    silent = Joined(channels=("depth",), seq=20, snapshot=False)
    assert deep_kinds(deep, silent, (DEEP, 22), (THIN, 23), to=23) == [], "whoever wants no snapshot gets no book"


def test_a_hole_behind_a_keyframe_is_found(deep: Reference) -> None:
    assert deep_kinds(deep, LATE, keyframe(DEEP, 15, 13), keyframe(THIN, 18, 17), (DEEP, 19)) == ["hole"]
    assert deep_kinds(deep, LATE, *BOTH, to=22) == ["never came"]


def test_a_keyframe_is_judged_by_what_is_in_it(deep: Reference) -> None:
    wrong = Keyframe(DEEP, 15, 13, 13, book_at(10).digest)
    assert deep_kinds(deep, LATE, wrong) == ["wrong book"]
    nowhere = Keyframe(DEEP, 15, 14, 14, book_at(13).digest)
    assert deep_kinds(deep, LATE, nowhere) == ["unknown"]
    crooked = Keyframe(DEEP, 15, 10, 13, book_at(13).digest)
    assert deep_kinds(deep, LATE, crooked) == ["hole"]


def test_a_keyframe_from_before_the_book_began_anew_is_found(deep: Reference) -> None:
    late = Joined(channels=("depth",), instruments=(DEEP[1],), seq=40)
    assert deep_kinds(deep, late, keyframe(DEEP, 35, 28)) == ["hole"]
    assert deep_kinds(deep, late, keyframe(DEEP, 35, 34)) == []


def test_a_keyframe_for_whoever_has_the_book_or_does_not_take_it_is_found(deep: Reference) -> None:
    assert deep_kinds(deep, LATE, *BOTH, (DEEP, 22), keyframe(DEEP, 24, 22)) == ["double"]
    assert deep_kinds(deep, keyframe(DEEP, 24, 22)) == ["unasked"]


def test_a_book_that_a_client_has_rebuilt_is_compared(deep: Reference) -> None:
    assert deep_kinds(deep, LATE, *BOTH, Held(DEEP, 19, book_at(19).digest)) == []
    assert deep_kinds(deep, LATE, *BOTH, Held(DEEP, 19, book_at(16).digest)) == ["wrong book"]


def test_a_resume_that_is_not_recovered_begins_anew_and_its_count_is_compared(deep: Reference) -> None:
    def resumed(missed: int, *after: Mark | tuple[Topic, int]) -> list[str]:
        not_recovered = Joined(
            channels=("depth",), seq=20, since=6, recovered={"depth": False}, missed={"depth": missed}
        )
        return deep_kinds(deep, not_recovered, *after)

    # Missing are 7, 10, 13 of BTC and 8, 11, 14, 17 of ETH.
    assert resumed(7, *BOTH, (DEEP, 22)) == []
    assert resumed(6, *BOTH, (DEEP, 22)) == ["miscounted"]
    assert resumed(7, (DEEP, 7)) == ["no book"], "one channel begins anew as a whole"


def test_a_resume_that_is_recovered_has_no_keyframe(deep: Reference) -> None:
    recovered = Joined(channels=("depth",), seq=20, since=15, recovered={"depth": True})
    assert deep_kinds(deep, recovered, (DEEP, 16), (THIN, 17), (DEEP, 19), (THIN, 20), to=20) == []
    assert deep_kinds(deep, recovered, keyframe(DEEP, 18, 16)) == ["double"]


def test_lagged_lets_a_book_begin_anew_or_go_on(deep: Reference) -> None:
    def lagged(missed: int, *after: Mark | tuple[Topic, int]) -> list[str]:
        told = Lagged(missed, 21, 32, {"depth": missed})
        return deep_kinds(deep, LATE, *BOTH, told, *after, to=32)

    # BTC's book begins anew at 31; 22, 25 and 28 are missed. ETH's goes on with all of it, kept beyond the tape.
    rest = [(THIN, seq) for seq in (23, 26, 29, 32)]
    assert lagged(3, *rest, (DEEP, 31)) == []
    assert lagged(4, *rest, (DEEP, 31)) == ["miscounted"]
    assert lagged(5, keyframe(THIN, 27, 26), (THIN, 29), (DEEP, 31), (THIN, 32)) == []
    assert lagged(3, *rest[1:], (DEEP, 31)) == ["hole", "miscounted"]
    assert lagged(3, *rest) == ["never came"]


def test_nobody_counts_changes_of_a_book_from_before_the_witnesses() -> None:
    late = Reference()
    late.begin(DEEP, 7, msgspec.json.encode({"type": "depth_snapshot", "bids": [("100.0", "7")], "asks": ASKS}))
    for seq in (10, 13, 16):
        late.add(DEEP, seq, seq - 3, depth_message(DEEP, seq, seq - 3, [("100.0", str(seq))]))
    made = Session(7, 1, "json")
    made.mark(Joined(channels=("depth",), seq=12, since=3, recovered={"depth": True}))
    made.got(DEEP, 4, 1, hash(b"nobody knows"))
    # Beside 7 those that the keyframe has.
    made.mark(Lagged(3, 5, 16, {"depth": 3}))
    made.mark(Keyframe(DEEP, 15, 13, 13, late.book(DEEP, 13) or 0))
    made.got(DEEP, 16, 13, late.digest(16, "json") or 0)
    assert judged(late, made).offences == []


def test_lagged_explains_no_book_of_a_channel_that_it_does_not_name(deep: Reference) -> None:
    joins = Joined(channels=("prices",), seq=20)
    told = Lagged(3, 21, 32, {"prices": 3})
    had = (*BOTH, joins, (BTC, 18), told)
    assert deep_kinds(deep, LATE, *had, keyframe(DEEP, 29, 28), (BTC, 30)) == ["double"]
    assert deep_kinds(deep, LATE, *had, (DEEP, 22), (BTC, 30)) == []


def test_lagged_counts_books_and_all_else_apart(deep: Reference) -> None:
    joins = Joined(channels=("prices",), seq=20)
    had = (*BOTH, joins, (BTC, 18))
    after = (*[(THIN, seq) for seq in (23, 26, 29, 32)], (BTC, 30), (DEEP, 31))
    assert deep_kinds(deep, LATE, *had, Lagged(6, 21, 32, {"depth": 3, "prices": 3}), *after) == []
    assert deep_kinds(deep, LATE, *had, Lagged(6, 21, 32, {"depth": 2, "prices": 4}), *after) == [
        "miscounted",
        "miscounted",
    ]


def test_a_reference_without_a_book_or_with_a_crossed_one_is_worth_nothing() -> None:
    reference = Reference()
    reference.add(DEEP, 5, 3, depth_message(DEEP, 5, 3, [("100.0", "1")]))
    assert "was not given" in reference.broken[0]
    reference = Reference()
    reference.begin(DEEP, 3, depth_message(DEEP, 4, 3, BIDS, ASKS, reset=True))
    reference.add(DEEP, 5, 3, depth_message(DEEP, 5, 3, [("99.0", "0")]))
    assert reference.broken == []
    reference.add(DEEP, 6, 5, depth_message(DEEP, 6, 5, [("101.0", "1")]))
    assert "crossed" in reference.broken[0]


# ---- intervals that are refused -------------------------------------------------------------------------------------


def thinned(reference: Reference, *entries: Mark) -> list[str]:
    made = deep_session(reference, *entries)
    made.complete_to = 0
    checker = Checker(reference, whole=("depth",))
    checker.client([made])
    return kinds(checker.offences)


def test_an_interval_is_refused_for_channels_of_which_every_message_counts_and_for_no_other(deep: Reference) -> None:
    asked = ("depth", "prices")
    refused = Refused(channels=("depth",), asked=asked, interval_ms=200, id=3)
    took = Joined(channels=("prices",), seq=20, interval_ms=200, asked=asked, id=3)
    assert thinned(deep, refused, took) == []
    assert thinned(deep, refused) == ["unanswered"], "the others take effect"
    assert thinned(deep, Joined(channels=asked, seq=20, interval_ms=200, asked=asked, id=3))[0] == "interval"
    both = Refused(channels=asked, asked=asked, interval_ms=200, id=3)
    assert thinned(deep, both) == ["refused"]
    without = Refused(channels=("depth",), asked=("depth",), interval_ms=0, id=3)
    assert thinned(deep, without) == ["refused"]


def test_what_a_refused_interval_is_about_stays_as_it_was(deep: Reference) -> None:
    refused = Refused(channels=("depth",), asked=("depth",), interval_ms=200, id=3)
    assert deep_kinds(deep, LATE, *BOTH, (DEEP, 25)) == ["hole"]
    made = deep_session(deep, LATE, *BOTH, refused, (DEEP, 25))
    checker = Checker(deep, whole=("depth",))
    checker.client([made])
    assert kinds(checker.offences) == ["hole"]


def test_messagepack_with_a_long_head_is_the_same_message() -> None:
    message = {str(number): number for number in range(15)}
    short = msgspec.msgpack.encode(message)
    long = b"\xde\x00\x0f" + short[1:]
    assert msgspec.msgpack.decode(long) == message
    assert shortest(long) == shortest(short) == short
    many = msgspec.msgpack.encode({str(number): number for number in range(16)})
    assert shortest(many) == many


def test_packed_has_the_digits_of_all_numbers_of_a_quote_as_text() -> None:
    raw = b'{"type":"quote_update","price":1.0,"bid":0.90,"bid_size":1e3,"ask":1.10,"data":{"bid":2.50}}'
    assert msgspec.msgpack.decode(packed(raw)) == {
        "type": "quote_update",
        "price": "1.0",
        "bid": "0.90",
        "bid_size": "1e3",
        "ask": "1.10",
        "data": {"bid": 2.5},
    }
