"""The terminal as `tickerd watch` takes it over: the alternate screen, keys as they are pressed, and every way back.

Whatever ends it, the terminal is then as it was: an error, `q`, Ctrl-C, SIGTERM. Ctrl-Z gives it back for the time
that the process is stopped, and the window may change its size at any moment.
"""

from __future__ import annotations

import os
import signal
import termios
import time
import tty
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any, Final

import trio
from rich import screen as rich_screen
from rich.console import Console, Group
from rich.control import Control
from rich.text import Text

from daemon.commands.terminal.keys import Key, Keyboard
from daemon.commands.terminal.picture import Scroll, View

_FRAMES_PER_S: Final = 8

_STDIN: Final = 0
_STDOUT: Final = 1
_KEYS_BYTES: Final = 1024

_UNKNOWN_SIZE: Final = (80, 24)
"""Of terminals that do not know theirs, as on a serial line."""


async def show(view: View, first: trio.Event) -> None:
    """Draw a view until `q` is pressed or cancelled, once `first` is set; the last picture stays on the terminal."""
    await first.wait()
    with trio.open_signal_receiver(signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT) as signals:
        screen = _Screen()
        try:
            screen.enter()
            async with trio.open_nursery() as nursery:
                window = _Window(view, screen)
                nursery.start_soon(window.obey_signals, signals)
                if os.isatty(_STDIN):
                    nursery.start_soon(window.obey_keys)
                await window.draw()
                nursery.cancel_scope.cancel(reason="q was pressed")
        finally:
            screen.leave()
            screen.print_last(view)


class _Screen:
    """The terminal itself."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._modes: list[Any] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines, as the terminal has them now, whatever the environment says."""
        try:
            columns, lines = os.get_terminal_size(_STDOUT)
        except OSError:
            return _UNKNOWN_SIZE
        return (columns, lines) if columns and lines else _UNKNOWN_SIZE

    def enter(self) -> None:
        """Take it over, also where that was done before and another process has changed it since."""
        if os.isatty(_STDIN):
            if self._modes is None:
                self._modes = termios.tcgetattr(_STDIN)
            # Ctrl-C and Ctrl-Z stay signals.
            tty.setcbreak(_STDIN, termios.TCSANOW)
        self._console.set_alt_screen(True)
        self._console.show_cursor(False)

    def leave(self) -> None:
        """Give it back. A terminal that is gone takes nothing."""
        with suppress(OSError):
            self._console.set_alt_screen(False)
            self._console.show_cursor(True)
        modes, self._modes = self._modes, None
        if modes is not None:
            with suppress(termios.error):
                termios.tcsetattr(_STDIN, termios.TCSADRAIN, modes)

    def draw(self, lines: Sequence[Text], size: tuple[int, int]) -> None:
        """Fill the screen with these lines."""
        self._console.size = size
        with self._console:  # all in one write
            self._console.control(Control.home())
            self._console.print(rich_screen.Screen(Group(*lines)), end="")

    def print_last(self, view: View) -> None:
        """Leave a last picture below what was on the terminal before, as much of it as one window holds."""
        columns, lines = self.size
        picture = view.draw(trio.current_time(), time.time(), columns)
        room = max(1, lines - 3)
        self._console.size = (columns, lines)
        with suppress(OSError):
            for line in (picture.title, picture.head, *picture.body[:room]):
                self._console.print(line, no_wrap=True, overflow=line.overflow or "crop")


class _Window:
    """What is seen of a view, and what its user does."""

    def __init__(self, view: View, screen: _Screen) -> None:
        self._view = view
        self._screen = screen
        self._scroll = Scroll()
        self._stirred = trio.Event()
        self._is_over = False

    async def draw(self) -> None:
        """Draw several times a second, and at once after a key; returns after `q`."""
        while not self._is_over:
            self._stirred = trio.Event()
            columns, lines = self._screen.size
            picture = self._view.draw(trio.current_time(), time.time(), columns)
            self._screen.draw(self._scroll.frame(picture, lines), (columns, lines))
            with trio.move_on_after(1 / _FRAMES_PER_S):
                await self._stirred.wait()

    async def obey_keys(self) -> None:
        """Do what keys say, as long as there are any to come."""
        keyboard = Keyboard()
        while not self._is_over:
            await trio.lowlevel.wait_readable(_STDIN)
            try:
                data = os.read(_STDIN, _KEYS_BYTES)
            except OSError:  # the terminal is gone, or not ours
                return
            if not data:
                return
            for key in keyboard.take(data):
                self._is_over = self._is_over or key is Key.QUIT
                self._scroll.press(key)
            self._stirred.set()

    async def obey_signals(self, signals: AsyncIterator[int]) -> None:
        """Follow the window's size, stop at Ctrl-Z, and go on after it."""
        async for number in signals:
            if number == signal.SIGTSTP:
                self._screen.leave()
                _stop()
            if number != signal.SIGWINCH:
                self._screen.enter()
            self._stirred.set()


def _stop() -> None:
    """Stop this process as Ctrl-Z does; returns when it goes on. Where no shell could wake it, the kernel refuses."""
    ours = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    try:
        os.kill(os.getpid(), signal.SIGTSTP)
    finally:
        signal.signal(signal.SIGTSTP, ours)
