"""Finished games for tests of judges."""

import math

from debate_rl.game.protocol import load_protocol
from debate_rl.game.question import Question
from debate_rl.game.transcript import Origin, open_transcript, read_speech
from debate_rl.judges.human import judge_in_person


def game(question, name="debate", prompts="lab", said="said {side}{turn}", **changes):
    """A finished game; `said` may name {side} and {turn}."""
    found = open_transcript(question, load_protocol(name, prompts=prompts, **changes), {"A": "x", "B": "y"})
    for turn in range(found.protocol.turns):
        speakers = found.speakers(turn)
        texts = [said.format(side=side, turn=turn) for side in speakers]
        pairs = zip(speakers, texts, strict=True)
        found = found.add([read_speech(text, found, side, turn, Origin(player="p")) for side, text in pairs])
    return found


def asked(number, correct=0, story=None, **fields):
    """A question of a story of its own."""
    given = {"id": f"q{number}", "text": f"where is w{number} ?", "answers": ("w1", "w2"), "passage": "it moved ."}
    return Question(**{**given, **fields}, correct=correct, group=story or f"s{number}")


def logs(*p):
    """Natural logarithms."""
    return [math.log(one) for one in p]


def sit(games, lines, log, count=1, play=None):
    """Judge games in the terminal by typed lines: (number judged, what was printed)."""
    shown, typed = [], iter(lines)

    def listen(prompt):
        shown.append(prompt)
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    judged = judge_in_person(games, "human/ann", log, shown.append, listen, count, play)
    return judged, "\n".join(shown)
