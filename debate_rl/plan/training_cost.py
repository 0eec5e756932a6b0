"""What the trainings of a run would need: rows, tokens, memory on each card, hours. All of it is estimated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from debate_rl.config.stages import WeakToStrongStage
from debate_rl.config.training_stages import (
    DpoStage,
    GrpoStage,
    IterationsStage,
    JudgeStage,
    PreferencesStage,
    SftStage,
    TrainingStage,
)
from debate_rl.config.tree import Hardware
from debate_rl.errors import UserError
from debate_rl.game.prompts import debater_messages
from debate_rl.game.protocol import SIDES
from debate_rl.game.transcript import Transcript
from debate_rl.judges.judge import AnyJudge, Panel
from debate_rl.plan.counting_engine import CHARACTERS_PER_TOKEN, second_of
from debate_rl.plan.plan import measured_habits, model_sizes, size_of
from debate_rl.records import Record
from debate_rl.runs.run import Run
from debate_rl.stages import grpo, judge, preferences, sft, weak_to_strong
from debate_rl.stages.adversarial import SHARE
from debate_rl.trainers.common.arguments import default_arguments
from debate_rl.trainers.common.memory import GIB, Reference, Training, card_of, hours, memory, refuse, sharding_of
from debate_rl.trainers.common.model_shapes import Shape, shape_of
from debate_rl.trainers.common.settings import Kind
from debate_rl.trainers.grpo.groups import places
from debate_rl.trainers.grpo.settings import Online
from debate_rl.weak_to_strong.methods import Method

READOUTS: dict[str, Kind] = {"answers": "judge", "head": "classifier", "probe": "classifier", "reward": "reward"}
HEADER = 200
"""Tokens of a debater's prompt beside its passage, about."""


@dataclass(frozen=True)
class Rows:
    """Rows of a training and their lengths in tokens, estimated."""

    count: int
    tokens: int
    """Of all rows together, each speech with a prompt of its own."""
    prompt: int
    """The longest."""
    speech: int


class Estimated(Record):
    """A training before it runs.

    Example:
        Estimated(stage="dpo", model="llama-3-8b", rows=2504, tokens=41065600, gib=14.3, parts="weights 5.3, ...",
                  hours=4.1, processes=1)
    """

    stage: str
    model: str
    rows: int
    tokens: int
    """That the training reads, over all its epochs."""
    gib: float | None = None
    """On each card; None where the model's shape is not known."""
    parts: str = ""
    hours: float | None = None
    processes: int = 1


def estimates(run: Run, only: set[str] | None = None, like: Path | None = None) -> list[Estimated]:
    """The trainings of a run, in order.

    Args:
        run: the experiment.
        only: names of stages; None is all.
        like: folder of a finished run whose speeches are like those that online training will play.

    Raises:
        UserError: what a training is made from can not be read, or it does not fit the hardware that the config names.
    """
    found = [training for training in _trainings(run, like) if only is None or training[0] in only]
    return [_estimate(run, *training) for training in found]


def check_hardware(run: Run, only: set[str] | None = None) -> None:
    """Make sure that a run with `hardware` is on a machine with GPUs, and that its trainings fit the cards named.

    Raises:
        UserError: there is no GPU, or see `estimates`.
    """
    import torch

    wanted = run.config.hardware
    if wanted is None:
        return
    if not torch.cuda.is_available():
        raise UserError(
            f"the config is for {card_of(wanted.card).name}, and there is no GPU here; look at it with --dry-run, "
            "or set hardware=null to run on the CPU"
        )
    estimates(run, only)


def _trainings(run: Run, like: Path | None) -> list[tuple[str, TrainingStage, Kind, str, Rows, int]]:
    """Name, settings, kind, base model and rows of each training, and how many times it is done."""
    models = run.config.models
    found: list[tuple[str, TrainingStage, Kind, str, Rows, int]] = []
    for name, stage in run.config.stages.items():
        training = stage.dpo if isinstance(stage, IterationsStage) else stage
        if not isinstance(training, TrainingStage):
            continue
        model, times = models.debater, 1
        kind: Kind = "dpo"
        if isinstance(stage, SftStage):
            kind, rows = "sft", _speeches(stage, run)
        elif isinstance(stage, JudgeStage):
            kind, rows, model = "judge", _attacked(stage, _verdicts(judge.games(stage, run), 2)), models.judge
        elif isinstance(stage, WeakToStrongStage):
            kind, rows = READOUTS[stage.readout], _items(stage, run)
            model, times = stage.strong or models.strong, stage.seeds
        elif isinstance(stage, GrpoStage):
            kind, rows = "grpo", _sequences(name, stage, run, like)
        elif isinstance(stage, IterationsStage):
            rows, times = _pairs(stage.preferences, run), stage.iterations
        elif isinstance(stage, DpoStage):
            rows = _pairs(run.config.stages[stage.preferences], run)
        else:
            continue
        found.append((name, training, kind, model, rows, times))
    return found


def _estimate(run: Run, name: str, stage: TrainingStage, kind: Kind, model: str, rows: Rows, times: int) -> Estimated:
    """Estimate one training, and refuse it where the config names a card that is too small."""
    hardware, shape = run.config.hardware, shape_of(run.resolve(model))
    sharding, processes = sharding_of(stage.launch)
    if hardware is not None and stage.launch is not None:
        processes = hardware.cards
    settings = {**default_arguments(kind), **stage.train}
    if isinstance(stage, GrpoStage):
        settings["per_device_train_batch_size"] = grpo.volume(stage, run, _rules(name, stage, run)).batch
    seen = rows.count if kind == "grpo" else _seen(settings, rows.count, processes)
    base: dict[str, Any] = {"stage": name, "model": model, "rows": rows.count, "processes": processes}
    tokens = int(times * seen * rows.tokens / max(rows.count, 1))
    if isinstance(stage, DpoStage) and stage.share_prompt:  # rows are counted with a prompt for each speech
        tokens = int(tokens * (rows.prompt + 2 * rows.speech) / (2 * (rows.prompt + rows.speech)))
    if shape is None:
        return Estimated(**base, tokens=tokens)
    training = _training(stage, kind, shape, rows, settings, hardware).model_copy(
        update={"sharding": sharding, "processes": processes}
    )
    spent = None
    if hardware is not None:
        card = card_of(hardware.card)
        refuse(training, card, f"stages.{name}")
        spent = hours(training, tokens, card)
    need, beside = memory(training), _beside(name, stage, run) if isinstance(stage, GrpoStage) else 0.0
    parts = str(need) + (f", judges and opponents {beside / GIB:.1f}" if beside >= 0.05 * GIB else "")
    return Estimated(**base, tokens=tokens, gib=(need.total + beside) / GIB, parts=parts, hours=spent)


def _training(
    stage: TrainingStage, kind: Kind, shape: Shape, rows: Rows, settings: dict[str, Any], hardware: Hardware | None
) -> Training:
    """What the memory of a stage's training depends on; without hardware it is as on a CPU."""
    limit = settings.get("max_length")
    prompt = rows.prompt if limit is None else min(rows.prompt, max(int(limit) - rows.speech, 1))
    reference: Reference = "adapter" if stage.lora is not None else "model"
    if settings.get("precompute_ref_log_probs") and stage.lora is None:
        reference = "none"
    if kind == "grpo" and not settings.get("beta"):
        reference = "none"
    elif isinstance(stage, GrpoStage) and stage.start == "base" and stage.lora is not None:
        reference = "base"
    return Training(
        kind=kind,
        shape=shape,
        prompt=prompt,
        speech=rows.speech,
        batch=int(settings["per_device_train_batch_size"]),
        lora=None if stage.lora is None else stage.lora.r,
        adapt_experts=stage.lora is not None and stage.lora.target_modules == "all-linear",
        quantize=stage.quantize,
        half=bool(settings.get("bf16", hardware is not None)),
        checkpointing=bool(
            settings.get("gradient_checkpointing", hardware is not None and kind in ("sft", "dpo", "grpo"))
        ),
        reference=reference,
        share_prompt=isinstance(stage, DpoStage) and stage.share_prompt,
        small_optimizer="8bit" in str(settings.get("optim", "")),
    )


def _seen(settings: dict[str, Any], rows: int, processes: int) -> float:
    """Rows that a training reads, over its epochs or up to its last step."""
    steps = int(settings.get("max_steps") or -1)
    if steps <= 0:
        return rows * float(settings["num_train_epochs"])
    accumulated = int(settings.get("gradient_accumulation_steps") or 1)
    return steps * processes * accumulated * int(settings["per_device_train_batch_size"])


def _speeches(stage: SftStage, run: Run) -> Rows:
    """The rows that transcripts and instructions give, by their length in characters."""
    # Shortening passages needs the model's tokenizer, which may be out of reach: they are counted as cut.
    plain, limit = stage.model_copy(update={"passage_tokens": None}), stage.passage_tokens
    tested = sft.tested_stories(run)
    found = [sft.material(plain, run, name, tested) for name in stage.transcripts]
    rows = [found[at].rows[place] for at, place in sft.drawn(plain, found, run.config.seed)]
    prompts = [_tokens(row.prompt) for row in rows]
    if limit is not None:
        prompts = [min(prompt, limit + HEADER) for prompt in prompts]
    speeches = [len(row.completion) // CHARACTERS_PER_TOKEN for row in rows]
    return Rows(len(rows), sum(prompts) + sum(speeches), max(prompts, default=0), max(speeches, default=0))


def _pairs(stage: Any, run: Run) -> Rows:
    """At most the pairs that a preferences stage makes: each pool gives all that it may."""
    if not isinstance(stage, PreferencesStage):
        raise UserError("a dpo stage's `preferences` names a stage of another kind; name one of kind preferences")
    grown = {tree.game.id: tree for tree in preferences.trees(stage, run)}
    count, tokens, longest, speech = 0, 0, 0, 0
    for game in preferences.games(stage, run):
        new, turns = game.protocol.max_new_tokens, game.protocol.turns
        # Where the judge calls one side a turn, nobody is called before the game is played.
        called = game.protocol.calls == "rejected"
        speakers = turns if called else sum(len(game.speakers(turn)) for turn in range(turns))
        pairs = grown[game.id].size[2] if game.id in grown else speakers * stage.pairs_per_pool
        first = _tokens(debater_messages(game, (game.speakers(0) or game.present)[0], 0))
        last = first + (turns - 1) * 2 * new
        count, tokens = count + pairs, tokens + pairs * ((first + last) + 2 * new)
        longest, speech = max(longest, last), max(speech, new)
    return Rows(count, tokens, longest, speech)


def _rules(name: str, stage: GrpoStage, run: Run) -> Online:
    """The settings of an online training."""
    return grpo.planned(stage, run, run.judge(name))


def _sequences(name: str, stage: GrpoStage, run: Run, like: Path | None) -> Rows:
    """The speeches that an online training learns from, each time that it reads them, with their prompts."""
    rules, habits = _rules(name, stage, run), measured_habits(run.folder if like is None else like)
    a_token = size_of(model_sizes(run), run.config.models.debater)[0]
    policy, most = run.debater(name), rules.protocol.max_new_tokens
    total, count, longest = 0.0, 0, 0.0
    for index, question in enumerate(grpo.shares(stage, run)[0]):
        for place in places(index, question, rules):
            seats = {place.side: "-"} if rules.protocol.sides == "drawn" else dict.fromkeys(SIDES, "-")
            game = Transcript(question=question, protocol=rules.protocol, players=seats)
            first = policy.request(game, place.side, 0)
            seen = place.turn * (2 if rules.protocol.speakers_see == "all" else 1)
            new, prompt = habits.tokens(first), sum(len(message.content) for message in first.messages) / a_token
            total, count = total + prompt + (seen + 1) * new, count + 1
            longest = max(longest, prompt + seen * most)
    sequences = grpo.volume(stage, run, rules).sequences
    return Rows(sequences, round(sequences * total / max(count, 1)), round(longest), most)


def _beside(name: str, stage: GrpoStage, run: Run) -> float:
    """Bytes of the models that an online training holds beside the policy: judges, and other players' base."""
    served, models = run.config.engine.kind == "server", set[str]()
    if not served or stage.served != "all":
        judges = [run.judge(name)]
        if stage.watch is not None and stage.watch.second is not None:
            judges.append(second_of(stage.watch.second, run))
        models |= {model for judge in judges for model in _models(judge)}
    if (stage.watch is not None or stage.opponent != "self") and (not served or stage.served == "none"):
        models.add(run.config.models.debater)
    shapes = [shape_of(run.resolve(model)) for model in sorted(models)]
    unit = 2 if run.config.hardware is not None else 4
    return float(unit * sum(shape.parameters for shape in shapes if shape is not None))


def _models(wanted: AnyJudge) -> set[str]:
    """Base models of a judge."""
    if isinstance(wanted, Panel):
        return {model for member in wanted.members for model in _models(member)}
    return {wanted.model}


def _verdicts(games: Sequence[Transcript], orders: int) -> Rows:
    """Finished games as a judge reads them: no passage."""
    found = [
        len(game.question.text) // CHARACTERS_PER_TOKEN + 150
        + sum(len(game.speakers(turn)) for turn in range(game.protocol.turns)) * game.protocol.max_new_tokens
        for game in games
    ]  # fmt: skip
    return Rows(orders * len(found), orders * sum(found), max(found, default=0), 8)


def _items(stage: WeakToStrongStage, run: Run) -> Rows:
    """Items for every supervisor and student, with their passage and a debate."""
    games = weak_to_strong.games(stage, run)
    debates = _verdicts(games, 1)
    passage = max((len(game.question.passage or "") for game in games), default=0) // CHARACTERS_PER_TOKEN
    supervisors = {row.supervisor(member) for row in stage.rows.values() for member in range(row.members)}
    supervisors.add(Method(members=1).supervisor(0))  # the weak model alone
    count = (len(supervisors) + 1) * stage.supervisor + stage.student  # the strong model on D1, and the ceiling
    count += sum(_taught(row, stage.supervisor, stage.student) for row in stage.rows.values())
    return Rows(count, count * (passage + debates.prompt), passage + debates.prompt, 8)


def _attacked(stage: JudgeStage, rows: Rows) -> Rows:
    """Games, their attacked copies, and the share of both that each adversarial round shows once more."""
    copies = stage.train_copies
    times = 1 + copies * bool(stage.train_attacks) + stage.adversarial_rounds * SHARE * (1 + copies)
    return replace(rows, count=round(times * rows.count), tokens=round(times * rows.tokens))


def _taught(method: Method, supervisor: int, student: int) -> int:
    """Items that a method's students read in training, and its supervisors of later rounds; a chain divides D2."""
    wanted = method.transfer
    trainings = 1 + wanted.generative + (wanted.refine is not None)
    return trainings * student * wanted.rounds + (wanted.rounds - 1) * method.members * supervisor


def _tokens(messages: Sequence[Any]) -> int:
    """Rough length of a prompt."""
    return sum(len(message["content"]) for message in messages) // CHARACTERS_PER_TOKEN
