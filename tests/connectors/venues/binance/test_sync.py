"""The book's rule, step by step, and against a venue that loses, doubles, delays and reorders its updates."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from connectors.base import Event, PayloadError, Rows
from connectors.books.book import Changes, Level
from connectors.push.venue import Said
from connectors.venues.binance import sync
from connectors.venues.binance.books import Books
from connectors.venues.binance.sync import Diff, Lost, Snapshot, Sync, Unusable
from protocol.channels import Channel
from protocol.fields import DepthFields, SnapshotFields
from protocol.kinds import KINDS
from tests.connectors.venues.rebuilt import Rebuilt

NOW = 1_765_211_445_122


def diff(first: int, last: int, bids: Sequence[Level] = (), asks: Sequence[Level] = (), at_ms: int = NOW) -> Diff:
    return Diff(E=at_ms, s="BTCUSDT", U=first, u=last, b=list(bids), a=list(asks))


def snapshot(id_: int, bids: Sequence[Level] = (("99", "1"),), asks: Sequence[Level] = (("101", "1"),)) -> Snapshot:
    return Snapshot(id_, list(bids), list(asks))


def live(id_: int = 10, *, levels: int = 1000, needed: int = 0) -> Sync:
    """A book of that id."""
    made = Sync(levels=levels, needed=needed)
    assert made.change(diff(id_, id_)) is None
    assert made.wants
    made.splice(snapshot(id_))
    assert (made.last, made.wants) == (id_, False)
    return made


class TestSplicing:
    def test_a_snapshot_that_begins_where_the_updates_do_is_contiguous(self) -> None:
        made = Sync(levels=1000, needed=0)
        made.change(diff(5, 7, [("98", "2")]))
        made.splice(snapshot(4))
        assert made.last == 7
        assert made.book.top(9) == ([("99", "1"), ("98", "2")], [("101", "1")])

    def test_a_snapshot_that_is_too_old_is_not_used_and_the_updates_stay(self) -> None:
        made = Sync(levels=1000, needed=0)
        made.change(diff(5, 7, [("98", "2")]))
        made.change(diff(8, 8, [("98", "3")]))
        with pytest.raises(Unusable, match="its snapshot 3 is older than its updates, which begin with 5"):
            made.splice(snapshot(3))
        assert (made.last, made.wants) == (None, True)
        made.splice(snapshot(7))
        assert made.last == 8
        assert made.book.bids.top(9) == [("99", "1"), ("98", "3")]

    def test_updates_that_the_snapshot_has_are_left_out_and_the_first_beyond_it_may_begin_before_it(self) -> None:
        made = Sync(levels=1000, needed=0)
        made.change(diff(5, 7, [("98", "2")]))
        made.splice(snapshot(10))
        assert made.change(diff(8, 9, [("98", "3")])) is None
        assert made.change(diff(10, 12, [("97", "4")])) == Changes([("97", "4")], [])
        assert made.last == 12
        assert isinstance(made.change(diff(12, 14)), Lost), "only the first one may"

    def test_a_hole_in_what_is_kept_makes_it_begin_behind_the_hole(self) -> None:
        made = Sync(levels=1000, needed=0)
        made.change(diff(5, 6))
        made.change(diff(9, 9))
        with pytest.raises(Unusable, match="begin with 9"):
            made.splice(snapshot(6))
        made.splice(snapshot(8))
        assert made.last == 9

    def test_a_snapshot_that_cannot_be_used_changes_nothing(self) -> None:
        made = live(10)
        for bad in (
            snapshot(11, [("x", "1")]),
            snapshot(11, [("99", "-1")]),
            snapshot(11, [("101", "1")]),
            snapshot(9),
        ):
            with pytest.raises(Unusable):
                made.splice(bad)
        assert made.last == 10
        assert made.book.top(9) == ([("99", "1")], [("101", "1")])

    def test_before_the_first_update_no_snapshot_can_be_compared(self) -> None:
        with pytest.raises(Unusable, match="no update has come"):
            Sync(levels=1000, needed=0).splice(snapshot(1))


class TestGaps:
    def test_a_hole_loses_the_book_and_what_follows_it_is_kept(self) -> None:
        made = live(10)
        assert made.change(diff(12, 13)) == Lost("its update 10 is followed by 12")
        assert (made.last, made.wants) == (None, True)
        made.change(diff(14, 15, [("98", "5")]))
        with pytest.raises(Unusable, match="begin with 12"):
            made.splice(snapshot(10))
        made.splice(snapshot(11))
        assert made.last == 15

    def test_what_came_before_is_left_out(self) -> None:
        made = live(10)
        assert made.change(diff(11, 12, [("98", "1")])) == Changes([("98", "1")], [])
        assert made.change(diff(11, 12, [("98", "9")])) is None
        assert made.change(diff(9, 10, [("98", "9")])) is None
        assert made.last == 12

    def test_a_crossed_book_is_lost_and_needs_a_snapshot_that_is_newer(self) -> None:
        made = live(10)
        assert made.change(diff(11, 11, [("101.5", "1")])) == Lost("it is crossed")
        with pytest.raises(Unusable):
            made.splice(snapshot(10))
        made.splice(snapshot(11))
        assert made.last == 11

    @pytest.mark.parametrize("level", [("x", "1"), ("99", ""), ("99", "-1"), ("-1", "1"), ("0", "1")])
    def test_levels_that_are_none_lose_the_book(self, level: Level) -> None:
        assert isinstance(live(10).change(diff(11, 11, [level])), Lost)

    def test_an_update_that_cannot_be_read_loses_the_book_until_one_comes_to_compare_with(self) -> None:
        made = live(10)
        assert made.unreadable("half of it") == Lost("half of it")
        assert made.unreadable("again") is None
        with pytest.raises(Unusable):
            made.splice(snapshot(99))
        made.change(diff(13, 14))
        with pytest.raises(Unusable):
            made.splice(snapshot(11))
        made.splice(snapshot(12))
        assert made.last == 14

    def test_ids_that_begin_anew_are_noticed(self) -> None:
        made = live(1_000)
        assert made.change(diff(3, 4, at_ms=NOW)) is None
        assert made.change(diff(5, 6, at_ms=NOW + 60_000)) == Lost("its update ids begin anew at 5")
        made.splice(snapshot(5))
        assert made.last == 6

    def test_a_snapshot_of_ids_that_never_come_is_noticed(self) -> None:
        made = Sync(levels=1000, needed=0)
        made.change(diff(5, 6))
        made.splice(snapshot(1_000))
        assert made.change(diff(7, 8, at_ms=NOW)) is None
        assert made.change(diff(9, 10, at_ms=NOW + 60_000)) == Lost("its update ids begin anew at 9")

    def test_what_is_kept_is_bounded_and_begins_anew_when_it_is_full(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sync, "MOST_KEPT", 5)
        made = Sync(levels=1000, needed=0)
        for id_ in range(1, 8):
            made.change(diff(id_, id_, [(str(id_), "1")]))
        with pytest.raises(Unusable, match="begin with 7"):
            made.splice(snapshot(5))
        made.splice(snapshot(6))
        assert made.last == 7


class TestWhatTheSnapshotDoesNotCover:
    BIDS = tuple((str(price), "1") for price in range(99, 89, -1))
    ASKS = tuple((str(price), "1") for price in range(101, 111))

    def full(self, *, needed: int) -> Sync:
        made = Sync(levels=10, needed=needed)
        made.change(diff(1, 1))
        made.splice(snapshot(1, self.BIDS, self.ASKS))
        return made

    def test_levels_beyond_a_full_side_are_never_served(self) -> None:
        made = self.full(needed=1)
        assert made.change(diff(2, 2, [("89.99", "5")], [("110.01", "5"), ("111", "2")])) == Changes([], [])
        assert made.change(diff(3, 3, [("90.01", "5")])) == Changes([("90.01", "5")], [])

    def test_of_a_side_that_is_not_full_all_is_known(self) -> None:
        made = Sync(levels=10, needed=1)
        made.change(diff(1, 1))
        made.splice(snapshot(1, self.BIDS[:9], self.ASKS))
        assert made.change(diff(2, 2, [("1", "5")], [("200", "5")])) == Changes([("1", "5")], [])

    def test_where_few_are_left_another_snapshot_is_wanted_beside_the_book(self) -> None:
        made = self.full(needed=3)
        for number, (price, _) in enumerate(self.BIDS[:4]):
            made.change(diff(2 + number, 2 + number, [(price, "0")]))
            assert not made.wants
        made.change(diff(6, 6, [("95", "0")]))
        assert (made.wants, made.last) == (True, 6)
        made.change(diff(7, 8, [("85", "7")]))
        made.splice(snapshot(7, [(str(price), "1") for price in range(94, 84, -1)], self.ASKS))
        assert (made.wants, made.last, len(made.book.bids)) == (False, 8, 10)
        assert made.book.bids.top(10)[-1] == ("85", "7")

    def test_where_fewer_are_left_than_are_served_the_book_is_lost(self) -> None:
        made = self.full(needed=3)
        gone = [(price, "0") for price, _ in self.BIDS[:8]]
        assert made.change(diff(2, 2, gone)) == Lost("the market has moved to where its levels are not known")
        made.change(diff(3, 3, gone))
        with pytest.raises(Unusable, match="is of where the market is no more"):
            made.splice(snapshot(2, self.BIDS, self.ASKS))


PRICES = st.integers(45, 64)
"""Bids are up to 54, asks above."""
QUANTITIES = st.sampled_from(["0", "1", "2.50", "3"])
FATES = st.sampled_from(["delivered"] * 8 + ["late", "late", "lost", "twice", "garbled"])
"""What becomes of a frame."""


class Link:
    """One connection: its books, the newest update id that it has heard, and whether a snapshot is under way."""

    def __init__(self, levels: int, shown: int) -> None:
        depth = Channel(name="depth", exchange="binance", kind=KINDS["depth"], instruments=("BTC/USDT",))
        top = msgspec.structs.replace(depth, name="book", kind=KINDS["book"], levels=shown, every_ms=10)
        self.books = Books([("BTC/USDT", "BTCUSDT", (depth, top))])
        self.books._books["BTCUSDT"].sync = Sync(levels=levels, needed=shown)
        self.heard = 0
        self.is_asked = False

    @property
    def sync(self) -> Sync:
        return self.books._books["BTCUSDT"].sync


class VenueAndBook(RuleBasedStateMachine):
    """A perfect venue on one side, what is published on the other, and in between all that can happen.

    The venue has up to ten bids and ten asks; a snapshot has the best four of each, and two are shown.
    """

    LEVELS, SHOWN = 4, 2

    @initialize()
    def begin(self) -> None:
        self.id = 100
        self.at_ms = NOW
        self.bids: dict[int, str] = {54: "1", 53: "1", 52: "1"}
        self.asks: dict[int, str] = {55: "1", 56: "1", 57: "1"}
        self.states = {100: (dict(self.bids), dict(self.asks))}
        self.connect()

    def connect(self) -> None:
        """A connection, with all that belongs to it: what is on the way of the last one is gone."""
        self.link: Link = Link(self.LEVELS, self.SHOWN)
        self.successor: Link | None = None
        self.late: list[Diff] = []
        self.published: Rebuilt | None = None
        self.top: tuple[list[Level], list[Level]] | None = None
        self.now_ms = self.at_ms

    # ---- the venue

    @rule(changes=st.lists(st.tuples(PRICES, QUANTITIES), min_size=1, max_size=4), fate=FATES)
    def trade(self, changes: list[tuple[int, str]], fate: str) -> None:
        """Some orders are placed or taken back."""
        self.move([(price, quantity, price <= 54) for price, quantity in changes], fate)

    @rule(levels=st.integers(1, 3), is_bid=st.booleans(), fate=FATES)
    def sweep(self, levels: int, is_bid: bool, fate: str) -> None:
        """Somebody takes the best levels of a side."""
        best = sorted(self.bids, reverse=True) if is_bid else sorted(self.asks)
        self.move([(price, "0", is_bid) for price in best[:levels]], fate)

    def move(self, changes: list[tuple[int, str, bool]], fate: str) -> None:
        """The market changes, and the venue sends what has changed."""
        first = self.id + 1
        told: dict[bool, dict[int, str]] = {True: {}, False: {}}
        for price, quantity, is_bid in changes:
            side = self.bids if is_bid else self.asks
            if quantity != "0":
                side[price] = quantity
            elif price in side and len(side) > self.SHOWN:
                del side[price]
            else:
                continue
            told[is_bid][price] = quantity
            self.id += 1
            self.states[self.id] = (dict(self.bids), dict(self.asks))
        if self.id >= first:
            self.at_ms += 100
            bids, asks = ([(str(price), quantity) for price, quantity in told[each].items()] for each in (True, False))
            self.send(diff(first, self.id, bids, asks, self.at_ms), fate)

    # ---- the way

    def send(self, frame: Diff, fate: str) -> None:
        if fate == "garbled":
            for link in self.links:
                self.take(link.books.unreadable("BTCUSDT", "garbled", self.now_ms), link)
                if not self.late:
                    # Else an older one could come, and pass for the next: the gap is seen with the one after.
                    link.heard = frame.u
        elif fate == "late":
            self.late.append(frame)
        elif fate != "lost":
            self.hear(frame)
            if fate == "twice":
                self.late.append(frame)

    @precondition(lambda self: self.late)
    @rule(data=st.data())
    def deliver_late(self, data: st.DataObject) -> None:
        """What was late comes, in any order."""
        self.hear(self.late.pop(data.draw(st.integers(0, len(self.late) - 1))))

    @rule(luck=st.integers(0, 7))
    def cut(self, luck: int) -> None:
        if luck == 7:
            self.connect()

    @precondition(lambda self: self.successor is None)
    @rule()
    def open_another(self) -> None:
        """A connection that is to take over hears what this one hears."""
        self.successor = Link(self.LEVELS, self.SHOWN)

    @precondition(lambda self: self.successor is not None)
    @rule()
    def take_over(self) -> None:
        """What the new one said until now was not used; it states what it has, and what it lacks."""
        assert self.successor is not None
        self.link, self.successor = self.successor, None
        self.take(self.link.books.restate(self.now_ms))
        self.wait(0)

    def hear(self, frame: Diff) -> None:
        self.now_ms = max(self.now_ms, frame.E)
        for link in self.links:
            link.heard = max(link.heard, frame.u)
            self.take(link.books.change("BTCUSDT", frame, self.now_ms), link)

    @property
    def links(self) -> list[Link]:
        return [self.link] if self.successor is None else [self.link, self.successor]

    # ---- REST

    @precondition(lambda self: any(link.is_asked for link in self.links))
    @rule(age=st.sampled_from([0, 0, 0, 1, 2, 5, 30]))
    def answer(self, age: int) -> None:
        """A snapshot comes; the venue's cache may be old, or ahead of what was delivered."""
        link = next(link for link in self.links if link.is_asked)
        id_ = max(100, self.id - age)
        bids, asks = self.states[id_]
        body = Snapshot(
            id_,
            [(str(price), bids[price]) for price in sorted(bids, reverse=True)[: self.LEVELS]],
            [(str(price), asks[price]) for price in sorted(asks)[: self.LEVELS]],
        )
        try:
            events = link.books.fetched("BTCUSDT", msgspec.json.encode(body), self.now_ms)
        except PayloadError:
            self.take(Rows([], link.books.unfetched("BTCUSDT", "it cannot be used")), link)
        else:
            link.is_asked = False
            self.take(events, link)

    @rule(ms=st.integers(0, 3_000))
    def wait(self, ms: int) -> None:
        waits_ms = [(link, link.books.waits_ms(self.now_ms)) for link in self.links]
        self.now_ms += ms
        for link, wait_ms in waits_ms:
            if wait_ms is not None and wait_ms <= ms:
                self.take(link.books.tick(self.now_ms), link)

    # ---- what is published

    def take(self, said: list[Event] | Rows, link: Link | None = None) -> None:
        """What a connection says; that of one that has not taken over is not used."""
        link = link or self.link
        if isinstance(said, Said) and said.needs:
            assert not link.is_asked, "one at a time"
            link.is_asked = True
        if link is not self.link:
            return
        events = said.events if isinstance(said, Rows) else said
        for note in said.notes if isinstance(said, Rows) else ():
            assert note.cause == "gap"
            self.published = self.top = None
        for event in events:
            if isinstance(event.fields, SnapshotFields):
                self.published = Rebuilt.of(event.fields)
            elif isinstance(event.fields, DepthFields):
                assert self.published is not None, "an update without a book"
                self.published.apply(event.fields)
            else:
                self.top = Rebuilt.top(event.data)

    @invariant()
    def what_is_published_is_what_the_venue_has_or_is_announced_as_lost(self) -> None:
        if getattr(self, "published", None) is None:
            return
        assert self.published is not None
        book, last = self.link.sync.book, self.link.sync.last
        assert last is not None
        assert last >= self.link.heard, "nothing that was heard is missing"
        for held, side, ladder, sign in (
            (self.published.bids, 0, book.bids, 1),
            (self.published.asks, 1, book.asks, -1),
        ):
            venue = {str(price): quantity for price, quantity in self.states[last][side].items()}
            if ladder.bound is not None:
                venue = {p: q for p, q in venue.items() if sign * int(p) * 10**18 >= ladder.bound}
            assert held == venue
            best = sorted(map(int, venue), reverse=sign > 0)[: self.SHOWN]
            whole = sorted(self.states[last][side], reverse=sign > 0)[: self.SHOWN]
            assert best == whole, "what is shown is the best that there is"

    @invariant()
    def the_best_levels_are_right_once_nothing_is_owed(self) -> None:
        if getattr(self, "published", None) is None or self.link.books.waits_ms(self.now_ms) is not None:
            return
        assert self.published is not None
        assert self.top == self.published.best(self.SHOWN)

    @invariant()
    def a_book_that_is_not_there_is_asked_for(self) -> None:
        for link in self.links if hasattr(self, "link") else ():
            assert link.is_asked or link.books._asks or not link.sync.wants


TestVenueAndBook = VenueAndBook.TestCase
