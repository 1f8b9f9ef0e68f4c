"""`daemon.commands.terminal.columns`: any window, and never a part of a number."""

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text

from daemon.commands.terminal.columns import NOT_WHOLE, Column, Layout

COLUMNS = (Column("name", 50, least=4), Column("price", 100, right=True), Column("size", 30, right=True))

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
    fitting = [word for word in price.split() if len(word) <= width]
    assert [word for line in printed for word in line.split() if word in fitting][: len(fitting)] == fitting or name


def test_what_is_worth_least_goes_first() -> None:
    row = ["BTC/USDT", "42150.50", "0.010"]
    assert lines(row, 40) == ["BTC/USDT  42150.50  0.010"]
    assert lines(row, 23) == ["BTC/USDT 42150.50 0.010"]
    assert lines(row, 22) == ["BTC/USDT 42150.50"]
    assert lines(row, 14) == ["BTC/… 42150.50"]
    assert lines(row, 12) == ["42150.50"]
    assert lines(row, 7) == [NOT_WHOLE]


def test_a_quote_that_fits_into_no_line_is_parted_at_its_blanks() -> None:
    assert lines(["", "42150.50 / 42150.60", ""], 12) == ["42150.50", "/", "42150.60"]


def test_wide_characters_take_two_cells() -> None:
    row = ["币安人生/USDT", "0.0123", ""]
    assert lines(row, 21) == ["币安人生/USDT  0.0123"]
    assert lines(row, 20) == ["币安人生/USDT 0.0123"]
    assert lines(row, 19) == ["币安人生/US… 0.0123"]
    assert lines(row, 12) == ["币安… 0.0123"]
