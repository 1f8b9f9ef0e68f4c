"""Channels over connections: nothing is lost, nothing is too much, and a channel stays together where it fits."""

from hypothesis import given
from hypothesis import strategies as st

from connectors.push.parcels import parcels
from protocol.channels import Channel
from protocol.kinds import KINDS


def channel(name: str, instruments: int) -> Channel:
    return Channel(
        name=name,
        exchange="x",
        kind=KINDS["trades"],
        instruments=tuple(f"{number}/USDT" for number in range(instruments)),
    )


wanted = st.lists(st.integers(1, 12), max_size=6).map(
    lambda sizes: [channel(f"c{number}", size) for number, size in enumerate(sizes)]
)


@given(wanted, st.integers(1, 10))
def test_each_topic_is_on_one_connection_and_none_carries_too_much(channels: list[Channel], most: int) -> None:
    made = parcels("x", channels, most)
    topics = [(each.name, name) for parcel in made for each in parcel.channels for name in each.instruments]
    assert sorted(topics) == sorted((each.name, name) for each in channels for name in each.instruments)
    for parcel in made:
        assert 0 < sum(len(each.instruments) for each in parcel.channels) <= most
        assert len({each.name for each in parcel.channels}) == len(parcel.channels)
    assert [parcel.name for parcel in made] == ["x", *(f"x-{number}" for number in range(2, 100))][: len(made)]


@given(wanted, st.integers(1, 10))
def test_a_channel_that_fits_is_on_one_connection_and_others_know_that_they_have_a_part(
    channels: list[Channel], most: int
) -> None:
    made = parcels("x", channels, most)
    for each in channels:
        carriers = [parcel for parcel in made if each.name in [other.name for other in parcel.channels]]
        if len(each.instruments) <= most:
            assert len(carriers) == 1
            assert each in carriers[0].channels
            assert each.name not in carriers[0].parts
        else:
            parts = [name for parcel in carriers for name in parcel.parts[each.name]]
            assert sorted(parts) == sorted(each.instruments)


def test_what_costs_more_than_others_and_what_costs_nothing() -> None:
    books, trades = channel("books", 4), channel("trades", 9)
    made = parcels("x", [books, trades], 2, lambda each, _: 1 if each is books or each.name == "books" else 0)
    assert [[(each.name, len(each.instruments)) for each in parcel.channels] for parcel in made] == [
        [("books", 2), ("trades", 9)],
        [("books", 2)],
    ]
    assert [len(parcel.channels) for parcel in parcels("x", [channel("a", 1)], 1, lambda *_: 5)] == [1]
