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
from debate_rl.stages.training import TrainingResult, train
from debate_rl.trainers.common.rows import judge_rows

if TYPE_CHECKING:
    from debate_rl.runs.run import Run
    from debate_rl.stages.judge import JudgeStage

SEARCHES = (Search(length=1, pool=1_000_000), Search(), Search())
"""Searches of each round: one over single words, two over several words. Each runs on other games, since a search finds
one weakness of many."""
ROUND_SHARE = 1 / 3
"""Share of the judge's training games that a round trains on, drawn anew each time."""


def adversarial_rounds(
    stage: JudgeStage, run: Run, out: Path, shown: Sequence[Transcript], judge: Judge
) -> tuple[Judge, list[tuple[Found, ...]], tuple[TrainingResult, ...]]:
    """Attack the judge and train it further, `stage.adversarial_rounds` times.

    Args:
        stage: settings.
        run: the experiment.
        out: the stage's working folder, which holds the first training.
        shown: games that the judge has learnt from.
        judge: the judge of the first training.

    Returns:
        The judge of the last round, and the suffixes and the training of each round.
    """
    suffixes: list[tuple[Found, ...]] = []
    trainings: list[TrainingResult] = []
    for number in range(1, stage.adversarial_rounds + 1):
        folder = out / f"round{number}"
        suffixes.append(_search(shown, judge, run, folder, number))
        listed = ", ".join(suffix.text for suffix in suffixes[-1] if suffix.text)
        run.say(f"  round {number}: found {listed or 'nothing'}")
        # Every suffix since the first round is taught again: a judge forgets the earlier ones otherwise.
        attacks = [attack_with(text) for text in _texts(suffixes)]
        sample_size = max(1, round(ROUND_SHARE * len(shown)))
        games = Random(f"{run.config.seed}/{number}").sample(list(shown), sample_size)
        copies = attacked_copies(games, mixed(stage.train_attacks, attacks), stage.train_copies)
        rows = judge_rows([*games, *copies], readout=judge.readout)
        metrics = train(run, stage, "judge", rows, folder, judge.model, judge.adapter)
        trainings.append(TrainingResult(**metrics))
        weights = {"model": str(folder / "model")} if stage.lora is None else {"adapter": str(folder / "adapter")}
        judge = judge.model_copy(update=weights)
    return judge, suffixes, tuple(trainings)


def _texts(rounds: Sequence[Sequence[Found]]) -> list[str]:
    """The suffixes of several rounds, each once, in the order in which they were found."""
    texts: dict[str, None] = {}
    for suffixes in rounds:
        for suffix in suffixes:
            texts.update(dict.fromkeys(suffix.texts))
    return list(texts)


def mixed(names: Sequence[str], searched: Sequence[Attack]) -> list[str | Attack]:
    """Alternate the attacks of the first training with those that were found; the shorter list is repeated."""
    if not names or not searched:
        return [*names, *searched]
    attacks: list[str | Attack] = []
    for index in range(max(len(names), len(searched))):
        attacks.append(names[index % len(names)])
        attacks.append(searched[index % len(searched)])
    return attacks


def search(games: Sequence[Transcript], judge: Judge, engine: Engine, number: int) -> list[Found]:
    """Search for suffixes in one round, counted from 1, on two-sided debates where there are any."""
    debates = [game for game in games if len(game.present) == 2] or list(games)
    words = suffix_words(debates)
    suffixes = []
    for index, settings in enumerate(SEARCHES):
        # Another seed for each search and round, so that each tries other games.
        seed = len(SEARCHES) * number + index
        suffixes.append(search_suffix(debates, judge, engine, words, settings.model_copy(update={"seed": seed})))
    return suffixes


def _search(games: Sequence[Transcript], judge: Judge, run: Run, folder: Path, number: int) -> tuple[Found, ...]:
    """The suffixes of one round, read from the folder where the search was finished before."""
    path = folder / "found.json"
    if not path.is_file():
        suffixes = search(games, judge, run.engine, number)
        write_json(path, [suffix.model_dump(mode="json") for suffix in suffixes])
    return tuple(Found.model_validate(suffix) for suffix in read_json(path))
