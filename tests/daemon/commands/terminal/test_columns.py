"""`daemon.commands.terminal.columns`: any window, and never a part of a number."""

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text

from daemon.commands.terminal.columns import NOT_WHOLE, Column, Layout

COLUMNS = (Column("name", 50, least=4, key=4), Column("price", 100, right=True), Column("size", 30, right=True))

names = st.text(st.sampled_from("ABC/币安人生USDTé"), max_size=14)
numbers = st.from_regex(r"[0-9]{1,18}\.[0-9]{1,8}", fullmatch=True)
quotes = st.tuples(numbers, numbers).map(" / ".join)


def lines(row: list[str], width: int) -> list[str]:
    cells = [Text(each) for each in row]
    layout = Layout(COLUMNS, [cells], width)
    assert cell_len(layout.head.plain) <= width
    return [line.plain for line in layout.lines(cells)]


@given(st.tuples(names, numbers | quotes, numbers), st.integers(1, 300))
def test_a_line_is_never_wider_than_its_window_and_a_number_never_cut(row: tuple[str, str, str], width: int) -> None:
    name, price, size = row
    printed = lines(list(row), width)
    assert all(cell_len(line) <= width for line in printed)
    whole = {name, *price.split(), *size.split(), NOT_WHOLE}
    for word in (word for line in printed for word in line.split()):
        assert word in whole or (word.endswith("…") and name.startswith(word[:-1]))
    shown = [word for line in printed for word in line.split()]
    assert all(word in shown for word in price.split() if len(word) <= width), (
        "the price is there, however narrow it is"
    )


def test_what_is_worth_least_goes_first() -> None:
    row = ["BTC/USDT", "42150.50", "0.010"]
    assert lines(row, 40) == ["BTC/USDT  42150.50  0.010"]
    assert lines(row, 23) == ["BTC/USDT 42150.50 0.010"]
    assert lines(row, 22) == ["BTC/USDT 42150.50"]
    assert lines(row, 14) == ["BTC/… 42150.50"]
    assert lines(row, 12) == ["BTC/USDT", "  42150.50"]
    assert lines(row, 7) == ["BTC/US…", NOT_WHOLE]


def test_a_wide_number_leaves_room_for_whose_it_is_or_has_lines_of_its_own() -> None:
    quote = ["BTC/USDT", "42150.50 / 42150.60", "0.010"]
    assert lines(quote, 24) == ["BTC… 42150.50 / 42150.60"]
    assert lines(quote, 22) == ["BTC/USDT  0.010", "  42150.50 / 42150.60"]
    assert lines(quote, 14) == ["BTC/USDT 0.010", "42150.50", "/", "42150.60"]
    rows = [[Text(each) for each in row] for row in (quote, ["ETH/USDT", "3400.5", "1"])]
    assert [line.plain for line in Layout(COLUMNS, rows, 22).lines(rows[1])] == ["ETH/USDT 3400.5     1"]


def test_wide_characters_take_two_cells() -> None:
    row = ["币安人生/USDT", "0.0123", ""]
    assert lines(row, 21) == ["币安人生/USDT  0.0123"]
    assert lines(row, 20) == ["币安人生/USDT 0.0123"]
    assert lines(row, 19) == ["币安人生/US… 0.0123"]
    assert lines(row, 12) == ["币安… 0.0123"]
