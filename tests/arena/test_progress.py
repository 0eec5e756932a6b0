import io

import pytest

from debate_rl.arena.progress import ProgressLine, duration


class Clock:
    """Time that passes when it is told to."""

    def __init__(self):
        self.now, self.tokens = 100.0, 50

    def __call__(self):
        return self.now

    def pass_(self, seconds, tokens):
        self.now += seconds
        self.tokens += tokens


def line(clock, say, **fields):
    return ProgressLine("games", say, tokens=lambda: clock.tokens, clock=clock, **fields)


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end():
    clock, said = Clock(), []
    progress = line(clock, said.append, every=10)
    progress(0, 0, 1000)
    for done in (100, 200, 300):
        clock.pass_(4, 2000)
        progress(done, 1, 1000)
    assert said == ["  games: 300 of 1,000 debates, 1 failed, 500 tokens/s, 28 s left"]
    clock.pass_(1, 0)
    progress(1000, 2, 1000)
    assert said[1:] == ["  games: 1,000 of 1,000 debates, 2 failed, 462 tokens/s, 13 s"]


def test_what_was_done_before_does_not_count_as_speed():
    clock, said = Clock(), []
    progress = line(clock, said.append, every=0)
    progress(900, 0, 1000)
    clock.pass_(10, 0)
    progress(910, 0, 1000)
    assert said == [
        "  games: 900 of 1,000 debates, 0 failed",
        "  games: 910 of 1,000 debates, 0 failed, 1 min 30 s left",
    ]


def test_a_second_set_of_games_counts_its_own_time():
    clock, said = Clock(), []
    progress = line(clock, said.append, every=0)
    for done in (0, 600, 0):  # the second set begins after the first
        progress(done, 0, 600)
        clock.pass_(100, 0)
    progress(100, 0, 600)
    assert said[-1] == "  games: 100 of 600 debates, 0 failed, 8 min 20 s left"


def test_a_terminal_has_one_line_that_is_written_over(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    clock, said, terminal = Clock(), [], io.StringIO()
    progress = line(clock, said.append, terminal=terminal)
    for done in (0, 1, 2):
        progress(done, 0, 2)
        clock.pass_(1, 10)
    written = terminal.getvalue().splitlines()
    assert not said and len(written) == 3 and all(text.startswith("\x1b[1A\x1b[K") for text in written[1:])
    assert written[0] == "  games: 0 of 2 debates, 0 failed" and "2 of 2" in written[2]
    assert all(len(text.removeprefix("\x1b[1A\x1b[K")) < 40 for text in written)


@pytest.mark.parametrize(("seconds", "said"), [(0.4, "0 s"), (59.4, "59 s"), (80, "1 min 20 s"), (3900, "1 h 5 min")])
def test_durations(seconds, said):
    assert duration(seconds) == said
