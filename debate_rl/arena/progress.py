"""One line about work that takes long: debates done, failed, tokens a second, time left."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from threading import Event, Thread
from typing import TextIO

EVERY = 10.0
"""Seconds between two lines of a log, at least."""
SILENCE = 9.0
"""Seconds without a line after which work that goes on says so."""


class ProgressLine:
    """Says how far some games are; it is a `log.Progress`.

    On a terminal one line is written over and over. Where there is none, a line is added to a log at most every `every`
    seconds, and one at the end.

    Args:
        name: of the work.
        say: takes the lines of a log.
        terminal: where lines are written over; None writes a log.
        tokens: how many were read and written so far, by any work of this process.
        clock: seconds.
        every: seconds between two lines of a log.
    """

    def __init__(
        self,
        name: str,
        say: Callable[[str], None] = print,
        terminal: TextIO | None = None,
        tokens: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = time.monotonic,
        every: float = EVERY,
    ) -> None:
        self._name = name
        self._say = say
        self._terminal = terminal
        self._tokens = tokens
        self._clock = clock
        self._every = every
        self._began = self._said = clock()
        self._before = tokens()
        self._found: int | None = None
        self._shown = False

    def __call__(self, done: int, failed: int, total: int) -> None:
        """Take note of (done, failed, all); the first time before anything new is done."""
        now = self._clock()
        if self._found is None:
            self._found, self._began, self._before = done, now, self._tokens()
        text = self._text(done, failed, total, now - self._began)
        if self._terminal is not None:
            self._rewrite(self._terminal, text)
        elif done == total or now - self._said >= self._every:
            self._said = now
            self._say(text)

    def _text(self, done: int, failed: int, total: int, seconds: float) -> str:
        """What the line says."""
        said = f"  {self._name}: {done:,} of {total:,} debates, {failed:,} failed"
        new = done - (self._found or 0)
        if new and seconds > 0:
            tokens = self._tokens() - self._before
            said += f", {tokens / seconds:,.0f} tokens/s" if tokens else ""
            said += f", {duration(seconds * (total - done) / new)} left" if done < total else f", {duration(seconds)}"
        return said

    def _rewrite(self, terminal: TextIO, text: str) -> None:
        """Put the line in place of the last one. The cursor stays below it, where an error message would begin."""
        width = shutil.get_terminal_size().columns - 1
        terminal.write(("\x1b[1A\x1b[K" if self._shown else "") + text[:width] + "\n")
        terminal.flush()
        self._shown = True


@contextlib.contextmanager
def heartbeat(place: str, say: Callable[[str], None], last_said: Callable[[], float] = lambda: 0.0) -> Iterator[None]:
    """Say that work still goes on whenever nothing was said for a while.

    Args:
        place: what is at work.
        say: takes the lines.
        last_said: when somebody else said something last, by `time.monotonic`.
    """
    done, began = Event(), time.monotonic()

    def beat() -> None:
        said = began
        while not done.wait(min(1.0, SILENCE)):
            now = time.monotonic()
            if now - max(said, last_said()) >= SILENCE:
                said = now
                say(f"  {place}: at work for {duration(now - began)}")

    thread = Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def duration(seconds: float) -> str:
    """Seconds in words.

    Example:
        >>> duration(80), duration(3900)
        ('1 min 20 s', '1 h 5 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
