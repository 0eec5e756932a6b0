"""One line about work that takes long: debates done, failed, tokens per second, time left."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from threading import Event, Thread
from typing import TextIO

EVERY = 10.0
"""Minimum seconds between two lines of a log."""
SILENCE = 9.0
"""Seconds without a line after which a heartbeat line is printed."""


class ProgressLine:
    """Reports how far a set of games is; it is a `resume_log.Progress`.

    On a terminal one line is rewritten in place. In a log a line is added at most every `every` seconds, and one at the
    end.

    Args:
        name: of the work.
        say: prints the lines of a log.
        terminal: where the line is rewritten; None writes a log.
        tokens: returns the tokens read and written so far, by any work of this process.
        clock: returns seconds.
        every: minimum seconds between two lines of a log.
        unit: what is counted.
    """

    def __init__(
        self,
        name: str,
        say: Callable[[str], None] = print,
        terminal: TextIO | None = None,
        tokens: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = time.monotonic,
        every: float = EVERY,
        unit: str = "debates",
    ) -> None:
        self._name = name
        self._say = say
        self._terminal = terminal
        self._tokens = tokens
        self._clock = clock
        self._every = every
        self._unit = unit
        self._started = clock()
        self._last_line = self._started
        self._tokens_before = tokens()
        self._done_before = 0
        self._done: int | None = None
        self._shown = False

    def __call__(self, done: int, failed: int, total: int) -> None:
        """Report (done, failed, all). The first call for a set of games comes before anything new is done."""
        now = self._clock()
        if self._done is None or done < self._done:
            # Another set begins. Games of an earlier run took no time now: speed and time left count from here.
            self._done_before = done
            self._started = now
            self._tokens_before = self._tokens()
        self._done = done
        text = self._text(done, failed, total, now - self._started)
        if self._terminal is not None:
            self._rewrite(self._terminal, text)
        elif done == total or now - self._last_line >= self._every:
            self._last_line = now
            self._say(text)

    def _text(self, done: int, failed: int, total: int, seconds: float) -> str:
        text = f"  {self._name}: {done:,} of {total:,} {self._unit}, {failed:,} failed"
        new = done - self._done_before
        if not new or seconds <= 0:
            return text
        tokens = self._tokens() - self._tokens_before
        if tokens:
            text += f", {tokens / seconds:,.0f} tokens/s"
        if done < total:
            return f"{text}, {duration(seconds * (total - done) / new)} left"
        return f"{text}, {duration(seconds)}"

    def _rewrite(self, terminal: TextIO, text: str) -> None:
        """Replace the previous line."""
        width = shutil.get_terminal_size().columns - 1
        # The cursor stays below the line, so that an error message does not begin in the middle of it. A line that
        # wraps could not be taken back by going up one row, hence the cut.
        up_and_clear = "\x1b[1A\x1b[K" if self._shown else ""
        terminal.write(f"{up_and_clear}{text[:width]}\n")
        terminal.flush()
        self._shown = True


@contextlib.contextmanager
def heartbeat(name: str, say: Callable[[str], None], last_said: Callable[[], float] = lambda: 0.0) -> Iterator[None]:
    """Print that work still goes on whenever nothing was printed for a while.

    Args:
        name: of the work.
        say: prints the lines.
        last_said: returns when somebody else printed something last, by `time.monotonic`.
    """
    done = Event()
    started = time.monotonic()

    def beat() -> None:
        last_beat = started
        while not done.wait(min(1.0, SILENCE)):
            now = time.monotonic()
            if now - max(last_beat, last_said()) >= SILENCE:
                last_beat = now
                say(f"  {name}: at work for {duration(now - started)}")

    thread = Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def duration(seconds: float) -> str:
    """Format seconds in words.

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
