"""Weak-to-strong: trained debaters help weak supervisors, whose labels teach a strong student."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from debate_rl.config.stages import WeakToStrongStage
from debate_rl.config.tree import Models
from debate_rl.data.questions import claims, load_questions
from debate_rl.data.tasks import binary_items
from debate_rl.data.tasks.binary_items import BinaryItem, Selection
from debate_rl.data.tasks.reward_pairs import load_pairs
from debate_rl.game.protocol import Protocol
from debate_rl.game.question import Question
from debate_rl.game.transcript import Transcript
from debate_rl.players.debater import Debater, read_name
from debate_rl.records import write, write_json
from debate_rl.runs.run import Metrics, Run, open_engine
from debate_rl.weak_to_strong.contexts import ROLES, Context
from debate_rl.weak_to_strong.ensemble import MOST_MEMBERS
from debate_rl.weak_to_strong.results.results import Results, results
from debate_rl.weak_to_strong.results.split_report import write_account
from debate_rl.weak_to_strong.results.tables import measures
from debate_rl.weak_to_strong.rollout import Rollout, Told, open_games
from debate_rl.weak_to_strong.tasks.items import Samples, Splits, items_of, plain_samples, sample_of, split_items
from debate_rl.weak_to_strong.tasks.pairs import heard_pair, pair_questions, pair_samples

if TYPE_CHECKING:
    from debate_rl.weak_to_strong.training_cache import Settings

SPARE = 8
"""Items loaded beyond those used: splits do not cut stories, so the parts miss their sizes by less than a story."""


def splits(stage: WeakToStrongStage, run: Run) -> Splits:
    """D1, D2 and test of the stage's task; questions come from stories that no debater was trained or rated on."""
    return _read(stage, run)[0]


def _read(stage: WeakToStrongStage, run: Run) -> tuple[Splits, Selection | None]:
    """The parts, and of a binary task how its items were read."""
    total = stage.supervisor + stage.student + stage.test
    found: Sequence[Question | BinaryItem]
    selection = None
    if stage.task in ("questions", "claims"):
        wanted = run.config.questions
        found = load_questions(
            wanted.source, wanted.path, "validation", total + SPARE, run.config.question_seed,
            family=stage.family or wanted.family, hard_only=wanted.hard_only,
            knobs={**({} if stage.family else wanted.knobs), **stage.knobs},
            human=wanted.human,
        )  # fmt: skip
        found = claims(found, run.config.question_seed) if stage.task == "claims" else found
    elif stage.task == "pairs":
        pairs = load_pairs("hh", stage.path, limit=total + SPARE, seed=run.config.question_seed).pairs
        found = pair_questions(pairs, run.config.question_seed)
    else:
        selection = binary_items.load(stage.task, stage.path, limit=total + SPARE, seed=run.config.question_seed)
        found = selection.items
    parts = split_items(items_of(found), stage.supervisor, stage.student, stage.test, run.config.question_seed)
    return parts, selection


def rules(stage: WeakToStrongStage, run: Run, context: Context) -> Protocol:
    """The protocol of a context; tasks without passages need none."""
    found = context.rules(stage.task not in ("questions", "pairs"), run.protocol)
    return found if stage.task == "questions" else found.model_copy(update={"needs_passage": False})


def first_seed(run: Run) -> int:
    """Of the first member's games: the runs of a study draw no game twice, the tables of a run share theirs."""
    return run.config.seed * MOST_MEMBERS


def games(stage: WeakToStrongStage, run: Run) -> list[Transcript]:
    """The games of each context, one an item for each draw that some supervisor reads; later rounds' are not known."""
    if not stage.draws:
        return []
    items = splits(stage, run).every
    # Which side market-making calls first is known when the weak model is trained; either costs the same.
    told = Told(p={item.id: 0.0 for item in items})
    found = []
    for name, draws in stage.draws.items():
        context = stage.helps[name]
        played = rules(stage, run, context)
        for seed in range(first_seed(run), first_seed(run) + draws):
            found += open_games(context, played, items, seed, stage.debater, told)
    return found


def models(stage: WeakToStrongStage, run: Run) -> Models:
    """The run's models with the stage's own weak and strong one."""
    own = {role: name for role, name in (("weak", stage.weak), ("strong", stage.strong)) if name is not None}
    return run.config.models.model_copy(update=own)


def player(stage: WeakToStrongStage, run: Run, name: str) -> Debater:
    """The player of a name: one of the run's, or the strong or weak model as it is."""
    role, best_of, refine = read_name(name)
    if role not in ROLES:
        return run.debater(name)
    model = models(stage, run).weak if role == "weak" else models(stage, run).strong
    return Debater(name=name, model=model, best_of=best_of, refine=refine, temperature=run.config.engine.temperature)


def run(stage: WeakToStrongStage, run: Run, out: Path) -> Metrics:
    """Play the games, train supervisors, students and ceiling, measure PGR."""
    if stage.generative:
        return _written(stage, run, out)
    from debate_rl.weak_to_strong.study import Reading, run_study  # here: it loads torch
    from debate_rl.weak_to_strong.training_cache import Trainings

    parts, selection = _read(stage, run)
    blind, shared = run.protocol("blind"), run.folder / "transfer"
    rollout = _rollout(stage, run, out, shared / "games")
    reading = Reading(
        weak=_samples(stage, parts, blind, stage.supervisor_reads_passage),
        strong=_samples(stage, parts, blind, True),
        contexts=stage.helps,
        rollout=rollout,
        weak_reads_passage=stage.supervisor_reads_passage,
        task=stage.task,
        resolve=run.resolve,
        naive=stage.naive,
    )
    settings = _settings(stage, run)
    readers = {"weak": (reading.weak, settings.weak), "strong": (reading.strong, settings.strong)}
    for note in write_account(out, parts, readers, selection).notes:
        run.say(f"  {note}")
    trainings = Trainings(settings, lambda: open_engine(run.config, run.resolve), shared)
    found = results(run_study(parts, reading, trainings, out / "trainings", stage.rows))
    legs = [leg for played in rollout.played.values() for leg in played]
    if legs:
        write(out / "legs.jsonl", legs)
    return _told(run, found)


def _written(stage: WeakToStrongStage, run: Run, out: Path) -> Metrics:
    """The same of a task whose answers are written."""
    from debate_rl.weak_to_strong.tasks.generative import generative_task, run_generative

    task = generative_task(
        stage.task, stage.supervisor, stage.student, stage.test, run.config.question_seed, stage.path  # type: ignore[arg-type]
    )  # fmt: skip
    members = {name: method.members for name, method in stage.rows.items()}
    engine = lambda: open_engine(run.config, run.resolve)  # noqa: E731
    hits = run_generative(task, _settings(stage, run), engine, run.folder / "transfer", members)
    write_json(out / "trainings" / "hits.json", hits.model_dump(mode="json"))
    return _told(run, results(hits))


def _told(run: Run, found: Results) -> Metrics:
    """Print and log what was found, and give it as metrics."""
    _say(run, found)
    _track(run, found)
    return found.model_dump(mode="json")


def _samples(stage: WeakToStrongStage, parts: Splits, blind: Protocol, passage: bool) -> Samples:
    """What a model reads of each item without help: a conversation with either reply, else what a judge reads."""
    if stage.task == "pairs" and stage.readout == "reward":
        return pair_samples(parts.every)
    return plain_samples(parts.every, blind, passage)


def _rollout(stage: WeakToStrongStage, run: Run, out: Path, folder: Path) -> Rollout:
    """What plays the stage's games; they lie in a folder that all tables of the run share."""
    return Rollout(
        engine=run.engine,
        player=lambda name: player(stage, run, name),
        rules=lambda context: rules(stage, run, context),
        judge=run.judge,
        folder=folder,
        seed=first_seed(run),
        debater=stage.debater,
        progress=run.progress(out),
        show=heard_pair if stage.readout == "reward" else sample_of,
    )


def _settings(stage: WeakToStrongStage, run: Run) -> Settings:
    """Models and training."""
    from debate_rl.weak_to_strong.training_cache import Settings

    used = models(stage, run)
    return Settings(
        weak=run.resolve(used.weak), strong=run.resolve(used.strong), readout=stage.readout, seeds=stage.seeds,
        lora=stage.lora, train=stage.train, quantize=stage.quantize, launch=stage.launch,
        processes=run.config.hardware.cards if run.config.hardware and stage.launch else None,
        seed=run.config.seed * stage.seeds,  # the runs of a study train no model twice
    )  # fmt: skip


def _track(run: Run, found: Results) -> None:
    """The same numbers in W&B: one table, and the values in the run's summary."""
    known = [(model, measure, one) for model, measure, one in measures(found) if one is not None]
    rows = [[model, measure, one.value, one.low, one.high, one.n, one.clusters] for model, measure, one in known]
    run.tracker.table(f"{run.at}/results", ["model", "measure", "value", "low", "high", "n", "clusters"], rows)
    run.tracker.summary({f"{run.at}/{model}/{measure}": one.value for model, measure, one in known})


def _say(run: Run, found: Results) -> None:
    """The table in a few lines."""
    for method in found.methods:
        supervisor = "-" if method.supervisor is None else f"{method.supervisor.value:.3f}"
        accuracies = f"supervisor {supervisor}, labels {method.labels.value:.3f}, student {method.student.value:.3f}"
        run.say(f"  {method.name:<8} {accuracies}, PGR {method.pgr_text}")
    ends = {"weak alone": found.weak, "strong untrained": found.untrained, "strong on D1": found.strong,
            "ceiling": found.ceiling}  # fmt: skip
    run.say("  " + ", ".join(f"{name} {end.value:.3f}" for name, end in ends.items() if end is not None))
    for note in found.notes:
        run.say(f"  {note}")
