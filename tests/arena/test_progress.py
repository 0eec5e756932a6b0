import pytest

from debate_rl.arena.progress import ProgressLine
from debate_rl.terminal import duration


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


def test_what_goes_on_between_two_chunks_is_taken_off_the_time_left():
    clock = Clock()
    progress = line(clock, [].append)
    progress(0, 0, 100)
    clock.pass_(10, 100)
    assert (
        progress.state() == "0 of 100 debates, 0 failed, 10 tokens/s, 10 s so far"
        and progress.kept() == "0 of 100 debates"
    )
    progress(50, 1, 100)
    clock.pass_(4, 0)
    assert (
        progress.state() == "50 of 100 debates, 1 failed, 7 tokens/s, 6 s left"
        and progress.kept() == "50 of 100 debates"
    )


@pytest.mark.parametrize(("seconds", "said"), [(0.4, "0 s"), (59.4, "59 s"), (80, "1 min 20 s"), (3900, "1 h 5 min")])
def test_durations(seconds, said):
    assert duration(seconds) == said
