"""How far an export has come: a bar, where somebody looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


@contextmanager
def shown(name: str, stream: TextIO) -> Iterator[Callable[[float], None]]:
    """A bar on this stream while the block lasts, if it is a terminal; what is yielded is told the share, 0 to 1."""
    if not stream.isatty():
        yield _nothing
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=stream), transient=True) as progress:
        task = progress.add_task(name, total=1.0)
        yield lambda share: progress.update(task, completed=share)


def _nothing(_: float) -> None:
    """Nobody looks."""
