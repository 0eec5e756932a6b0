"""Whether the questions of a run fit what its models can read, counted by the models' own tokenizers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from debate_rl.config_stages import Stage, WeakToStrongStage
from debate_rl.config_training import IterationsStage, JudgeStage
from debate_rl.engines.chat import prompt_ids
from debate_rl.engines.request import Message as ChatMessage
from debate_rl.errors import UserError
from debate_rl.experiment import Run
from debate_rl.game.prompts import Message, debater_messages, judge_messages
from debate_rl.game.protocol import Protocol
from debate_rl.game.question import Question, Split
from debate_rl.game.transcript import open_transcript
from debate_rl.stages import weak_to_strong
from debate_rl.stages.check_models import ASKS

LONGEST = 8
"""Questions that are tried of each split, those with most characters."""
_SPLITS: dict[str, tuple[Split, ...]] = {
    "preferences": ("train",),
    "grpo": ("train",),
    "iterations": ("train", "test"),
    "judge": ("train", "test"),
    "tournament": ("test",),
    "oversight": ("test",),
    "reading": ("test",),
}
"""Questions that a stage plays on."""


def splits_of(stages: Mapping[str, Stage]) -> list[Split]:
    """The splits of questions that stages play on."""
    played = [stage for stage in stages.values() if not (isinstance(stage, JudgeStage) and stage.from_ == "recorded")]
    return list(dict.fromkeys(split for stage in played for split in _SPLITS.get(stage.kind, ())))


def protocols_of(stage: Stage) -> list[str | None]:
    """The protocols that a stage plays, by name; None is the run's own."""
    if isinstance(stage, WeakToStrongStage):
        return [stage.helps[name].protocol for name in stage.draws if stage.helps[name].protocol]
    several = getattr(stage, "protocols", None)
    if isinstance(stage, JudgeStage) and stage.from_ == "recorded":
        return []
    if several is not None:
        return list(several)
    if isinstance(stage, IterationsStage):
        return [stage.preferences.protocol]
    return [stage.protocol] if hasattr(stage, "protocol") else []


@dataclass(frozen=True)
class Reader:
    """A model that reads prompts.

    Attributes:
        name: as the config names it.
        role: debater or judge.
        tokenizer: its own.
        limit: tokens that it reads, of prompt and answer together.
    """

    name: str
    role: str
    tokenizer: Any
    limit: int

    def tokens(self, messages: Sequence[Message]) -> int:
        """Length of a prompt."""
        return len(prompt_ids(self.tokenizer, tuple(ChatMessage.model_validate(one) for one in messages)))


@dataclass(frozen=True)
class First:
    """The first prompt of a role in a game.

    Attributes:
        role: debater or judge.
        messages: the prompt.
        new: tokens to be written after it.
        speeches: most tokens of the speeches that the role's last prompt has besides.
    """

    role: str
    messages: list[Message]
    new: int
    speeches: int


def check_lengths(run: Run, stages: Mapping[str, Stage], here: Mapping[str, Path], note: Callable[[str], None]) -> None:
    """Make sure that the models can read the longest questions.

    A first prompt that is too long ends a game for certain. Where speeches as long as they may be would end it later,
    that is noted.

    Args:
        run: the experiment.
        stages: that will be run.
        here: folder of each model on this machine; others can not be asked.
        note: takes what may go wrong.

    Raises:
        UserError: a question does not fit.
    """
    _check_items(run, stages, here)
    if run.config.engine.kind != "transformers":
        return  # the server counts
    readers = {role: _reader(role, getattr(run.config.models, role), here) for role in ("debater", "judge")}
    for name, stage in stages.items():
        if stage.kind == "grpo" or stage.kind not in ASKS:
            continue  # online training leaves out what does not fit, and counts it
        for rules in {run.protocol(one).name: run.protocol(one) for one in protocols_of(stage)}.values():
            questions = [one for split in splits_of({name: stage}) for one in _longest(run.questions(split))]
            longer = [note_ for one in questions for note_ in _check_game(name, one, rules, readers, run.config.seed)]
            if longer:
                note(longer[0])


def _reader(role: str, name: str, here: Mapping[str, Path]) -> Reader | None:
    """The reader of a role, where its model is on this machine."""
    if name not in here:
        return None
    from debate_rl.trainers.bases import load_tokenizer

    return Reader(name, role, load_tokenizer(str(here[name])), context_of(here[name]))


def context_of(folder: Path) -> int:
    """Tokens that a model reads, by its config.json; without an entry there is no end."""
    tree = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text = tree.get("text_config") or tree
    return int(text.get("max_position_embeddings") or text.get("n_positions") or 1 << 30)


def _check_game(
    stage: str, question: Question, rules: Protocol, readers: Mapping[str, Reader | None], seed: int
) -> list[str]:
    """What may go wrong in a game on a question.

    Raises:
        UserError: a first prompt does not fit.
    """
    notes = []
    for first in _first_prompts(question, rules, seed):
        reader = readers[first.role]
        if reader is None:
            continue
        tokens = reader.tokens(first.messages)
        what = f"stage {stage!r}: question {question.id!r} under {rules.name!r}"
        limit = f"the {reader.limit:,} that {reader.name} reads"
        if tokens + first.new > reader.limit:
            more = f" and {first.new:,} to write" if first.new else ""
            raise UserError(
                f"{what} has a prompt of {tokens:,} tokens for the {first.role}{more}, more than {limit}; "
                "leave long questions out, shorten their passages, or take another model"
            )
        last = tokens + first.new + first.speeches
        if last > reader.limit:
            notes.append(
                f"{what}: with speeches of {rules.max_new_tokens:,} tokens the {first.role}'s last prompt would take "
                f"{last:,} tokens, more than {limit}; such games fail (fewer turns or protocol.max_new_tokens)"
            )
    return notes


def _first_prompts(question: Question, rules: Protocol, seed: int) -> list[First]:
    """The first prompt of a debater and of the judge."""
    game = open_transcript(question, rules, {"A": "base", "B": "base"}, seed)
    present = len(game.present)
    together = 1 if rules.judge_sees == "apart" or rules.calls == "rejected" else present
    heard = rules.turns * rules.max_new_tokens * together
    prompts = [First("judge", judge_messages(game, game.present, (0, 1)), 0, heard)]
    if rules.turns:
        seen = present if rules.speakers_see == "all" and rules.calls == "order" else 1
        speeches = (rules.turns - 1) * rules.max_new_tokens * seen
        messages = debater_messages(game, game.present[0], 0)
        prompts.append(First("debater", messages, rules.max_new_tokens, speeches))
    return prompts


def _longest(questions: Sequence[Question]) -> list[Question]:
    """The questions with most characters."""
    return sorted(questions, key=lambda one: -len(f"{one.passage}{one.text}{one.answers}"))[:LONGEST]


def _check_items(run: Run, stages: Mapping[str, Stage], here: Mapping[str, Path]) -> None:
    """Make sure that supervisors and students can read the items of weak-to-strong whole.

    Raises:
        UserError: some are too long.
    """
    from debate_rl.weak_to_strong.lengths import check_readable

    for stage in stages.values():
        if not isinstance(stage, WeakToStrongStage) or stage.generative:
            continue  # a task with written answers is short
        if stage.readout != "answers" and stage.train.get("max_length") is not None:
            continue  # longer texts are cut there, and counted
        used, (parts, _) = weak_to_strong.models(stage, run), weak_to_strong.read(stage, run)
        blind = run.protocol("blind")
        for model, passage, what in (
            (used.weak, stage.supervisor_reads_passage, "items"),
            (used.strong, True, "items"),
        ):
            if model in here:
                texts = weak_to_strong.plain_texts(stage, parts, blind, passage)
                check_readable(texts.values(), str(here[model]), what)
