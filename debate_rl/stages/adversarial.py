"""Adversarial rounds of a judge stage: suffixes are searched against the judge, and it goes on learning with them.

A round searches on the stories that the judge learns from. Attacks are measured on test debates, of other stories. In
the stage's folder:
    round1/found.json   the suffixes that this round found
    round1/adapter/     its judge (or model/), with rows.jsonl and history.json beside it
    round2/ ...
A finished part is not done again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from debate_rl.engines.request import Engine
from debate_rl.game.transcript import Transcript
from debate_rl.judges.attacks.edits import Attack, attacked_copies, suffix_words
from debate_rl.judges.attacks.suffix_search import Found, Search, attack_with, search_suffix
from debate_rl.judges.judge import Judge
from debate_rl.records import read_json, write_json
from debate_rl.stages.base import Metrics
from debate_rl.stages.training import train
from debate_rl.trainers.common.rows import judge_rows

if TYPE_CHECKING:
    from debate_rl.runs.run import Run
    from debate_rl.stages.judge import JudgeStage

SEARCHES = (Search(length=1, pool=1_000_000), Search(), Search())
"""Of each round: every word alone, and two searches for several words, on other games each: a search finds one way in
of many."""
ROUND_SHARE = 1 / 3
"""Of the games that the judge learns from, drawn anew in each round."""


def adversarial_rounds(
    stage: JudgeStage, run: Run, out: Path, shown: Sequence[Transcript], judge: Judge
) -> tuple[Judge, list[tuple[Found, ...]], Metrics]:
    """Attack the judge and train it further, so many times.

    Args:
        stage: settings.
        run: the experiment.
        out: the stage's working folder, which holds the first training.
        shown: games that the judge has learnt from.
        judge: the judge of the first training.

    Returns:
        The judge of the last round, what each round found, and `adversarial`, the numbers of its trainings.
    """
    found: list[tuple[Found, ...]] = []
    trained = []
    for number in range(1, stage.adversarial_rounds + 1):
        folder = out / f"round{number}"
        found.append(_search(shown, judge, run, folder, number))
        texts = dict.fromkeys(text for each in found for one in each for text in one.texts)
        attacks = mixed(stage.train_attacks, [attack_with(text) for text in texts])
        run.say(f"  round {number}: found {', '.join(one.text for one in found[-1] if one.text) or 'nothing'}")
        drawn = Random(f"{run.config.seed}/{number}").sample(list(shown), max(1, round(ROUND_SHARE * len(shown))))
        copies = attacked_copies(drawn, attacks, stage.train_copies)
        trained.append(train(run, stage, "judge", judge_rows([*drawn, *copies]), folder, judge.model, judge.adapter))
        place = {"model": str(folder / "model")} if stage.lora is None else {"adapter": str(folder / "adapter")}
        judge = judge.model_copy(update=place)
    return judge, found, {"adversarial": trained} if trained else {}


def mixed(names: Sequence[str], found: Sequence[Attack]) -> list[str | Attack]:
    """Attacks to learn from in turn: those of the first training and those that were found, as many of each."""
    if not names or not found:
        return [*names, *found]
    longer = max(len(names), len(found))
    return [one for at in range(longer) for one in (names[at % len(names)], found[at % len(found)])]


def search(games: Sequence[Transcript], judge: Judge, engine: Engine, number: int) -> list[Found]:
    """The searches of one round, counted from 1, on games in which both sides speak where there are any."""
    debates = [game for game in games if len(game.present) == 2] or list(games)
    words = suffix_words(debates)
    settings = [one.model_copy(update={"seed": len(SEARCHES) * number + place}) for place, one in enumerate(SEARCHES)]
    return [search_suffix(debates, judge, engine, words, one) for one in settings]


def _search(games: Sequence[Transcript], judge: Judge, run: Run, folder: Path, number: int) -> tuple[Found, ...]:
    """The suffixes of one round, which are searched for once."""
    path = folder / "found.json"
    if not path.is_file():
        write_json(path, [one.model_dump(mode="json") for one in search(games, judge, run.engine, number)])
    return tuple(Found.model_validate(one) for one in read_json(path))
