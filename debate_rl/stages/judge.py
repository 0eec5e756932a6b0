"""Finetuning and calibrating the judge on the debates of untrained and trained players; between the two adversarial
rounds where the stage wants any (`stages.adversarial`).

It is calibrated twice on held-out stories: on games whose sides it reads together, and on lone speakers. The latter are
the consultancies among its protocols, else each side of the debates alone, for which nothing is generated.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from debate_rl.arena.rollout import check_played, play_to_file
from debate_rl.arena.schedule import self_play
from debate_rl.config_training import JudgeStage
from debate_rl.experiment import Metrics, Run
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import Leg, Verdict
from debate_rl.judges.attacks import attacked_copies
from debate_rl.judges.calibration import Calibrator, Kind, fit_calibrator, split_clusters
from debate_rl.judges.judge import Judge, judge_transcripts, mean_probability
from debate_rl.judges.scores import judge_change, judge_scores, order_effect
from debate_rl.judges.sycophancy import both_kinds, consultants, fit_lone, is_drawn
from debate_rl.records import write, write_json
from debate_rl.stages import recorded
from debate_rl.stages.adversarial import adversarial_rounds
from debate_rl.stages.attacks import compare_attacks
from debate_rl.stages.training import train
from debate_rl.trainers.rows import judge_rows

CALIBRATION_SHARE = 0.25
"""Of the training stories, held out from finetuning to calibrate on."""


def games(stage: JudgeStage, run: Run) -> list[Transcript]:
    """Self-play on training questions, then on the test questions that the judge is measured on; none if recorded."""
    if stage.from_ == "recorded":
        return []
    return _training_games(stage, run) + _test_games(stage, run)


def _training_games(stage: JudgeStage, run: Run) -> list[Transcript]:
    return [
        game
        for name in stage.protocols
        for game in self_play(
            stage.players, run.questions("train", stage.questions), run.protocol(name), run.config.seed
        )
    ]


def _test_games(stage: JudgeStage, run: Run) -> list[Transcript]:
    return self_play(stage.players[-1:], run.questions("test"), run.protocol(), run.config.seed)


def run(stage: JudgeStage, run: Run, out: Path) -> Metrics:
    """Play, finetune on gold labels, calibrate on held-out stories, and compare before and after on test stories."""
    if stage.from_ == "recorded":
        return recorded.run(stage, run, out, CALIBRATION_SHARE)
    players = {name: run.debater(name) for name in stage.players}
    planned = games(stage, run)
    legs = play_to_file(planned, players, run.engine, None, out / "legs.jsonl", progress=run.progress(out))
    write(out / "legs.jsonl", legs)
    check_played(legs)
    count = len(_training_games(stage, run))
    shown, held_out = learnt_and_held_out(stage, run, [leg.transcript for leg in legs[:count] if leg.failure is None])
    rows = judge_rows([*shown, *attacked_copies(shown, stage.train_attacks, stage.train_copies)])
    metrics = train(run, stage, "judge", rows, out, run.config.models.judge)

    failed_games, failed_verdicts = sum(leg.failure is not None for leg in legs), 0
    before = Judge(name="base judge", model=run.config.models.judge)
    after, found, learnt_more = adversarial_rounds(stage, run, out, shown, _trained(stage, run, out))
    if stage.calibrate != "none":
        calibrator, failed_verdicts = _calibrator(stage.calibrate, held_out, after, run, stage.calibrate_lone)
        write_json(out / "calibrator.json", calibrator.model_dump(mode="json"))
        after = after.model_copy(update={"calibrator": calibrator})
    tested = [leg.transcript for leg in legs[count:] if leg.failure is None]
    compared, failed = _compare(tested, before, after, run, out)
    counts = {"failed_games": failed_games, "failed_verdicts": failed_verdicts + failed}
    if any(counts.values()):
        run.say(f"  {failed_games} games and {counts['failed_verdicts']} verdicts failed; they count for nothing")
    attacked = compare_attacks(tested, before, after, stage, run, out, found)
    return {**metrics, **learnt_more, **counts, **compared, **attacked}


def learnt_and_held_out(
    stage: JudgeStage, run: Run, games: Sequence[Transcript]
) -> tuple[list[Transcript], list[Transcript]]:
    """Divide training games into those that the judge learns from and those that it is calibrated on.

    The latter are of the last player, whose debates it will judge: the weaker players' would make it look less sure
    than it may be.
    """
    held_out, kept = split_clusters([game.question.cluster for game in games], CALIBRATION_SHARE, run.config.seed)
    return [games[at] for at in kept], [games[at] for at in held_out if _of_last(stage, games[at])]


def lone_games(games: Sequence[Transcript]) -> list[Transcript]:
    """What else is judged to calibrate lone speakers: each side alone, where the games hold no consultancies for it."""
    if both_kinds([game for game in games if is_drawn(game)]):
        return []
    return consultants([game for game in games if len(game.present) == 2])


def _calibrator(
    kind: Kind, games: Sequence[Transcript], judge: Judge, run: Run, apart: bool = True
) -> tuple[Calibrator, int]:
    """The judge's calibration on held-out games, with that of lone speakers `apart`, and how many verdicts failed."""
    judged = _verdicts(games, judge, run)
    failed = len(games) - len(judged)
    together = [pair for pair in judged if len(pair[0].present) != 1 or not apart] or judged
    p = [verdict.p[0] for _, verdict in together]
    correct = [float(game.question.correct == 0) for game, _ in together]
    found = fit_calibrator(kind, p, correct, [game.question.cluster for game, _ in together])
    if not apart:
        return found, failed
    lone = [pair for pair in judged if is_drawn(pair[0])]
    made = lone_games([game for game, _ in judged])
    if made:
        lone = _verdicts(made, judge, run)
        failed += len(made) - len(lone)
    if not both_kinds([game for game, _ in lone]):
        run.say("  no lone speakers for both right and wrong answers to calibrate on; they are treated as debates")
        return found, failed
    return found.model_copy(update={"lone": fit_lone(kind, lone)}), failed


def _of_last(stage: JudgeStage, game: Transcript) -> bool:
    """Whether a game is of the last player, whose debates the judge is measured on."""
    return stage.players[-1] in game.players.values()


def _trained(stage: JudgeStage, run: Run, out: Path) -> Judge:
    """The judge that was just trained, before it is calibrated."""
    name = out.name.lstrip(".")
    if stage.lora is None:
        return Judge(name=name, model=str(out / "model"))
    return Judge(name=name, model=run.config.models.judge, adapter=str(out / "adapter"))


def _verdicts(games: Sequence[Transcript], judge: Judge, run: Run) -> list[tuple[Transcript, Verdict]]:
    """Games with their verdicts, where there is one."""
    found = judge_transcripts(games, judge, run.engine)
    return [(game, verdict) for game, verdict in zip(games, found, strict=True) if isinstance(verdict, Verdict)]


def _compare(games: Sequence[Transcript], before: Judge, after: Judge, run: Run, out: Path) -> tuple[Metrics, int]:
    """The base judge and the trained one on the same test debates, and how many verdicts of the two failed."""
    old, new = _verdicts(games, before, run), _verdicts(games, after, run)
    failed = 2 * len(games) - len(old) - len(new)
    both = {game.id for game, _ in old} & {game.id for game, _ in new}
    old, new = ([pair for pair in side if pair[0].id in both] for side in (old, new))
    for name, side in (("base_legs.jsonl", old), ("test_legs.jsonl", new)):
        write(out / name, [Leg(transcript=game, verdict=verdict) for game, verdict in side])
    labels = [game.question.cluster for game, _ in new]
    p_old, p_new = ([v.p[g.question.correct or 0] for g, v in side] for side in (old, new))
    first, second = ([mean_probability(verdict, order) for _, verdict in new] for order in ((0, 1), (1, 0)))
    measured = {
        "before": judge_scores(p_old, labels).model_dump(mode="json"),
        "after": judge_scores(p_new, labels).model_dump(mode="json"),
        "change": judge_change(p_new, p_old, labels).model_dump(mode="json"),
        "order_effect": order_effect(first, second, labels).model_dump(mode="json"),
    }
    return measured, failed
