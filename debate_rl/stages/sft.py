"""Supervised finetuning of the debater on transcripts and instructions, mixed as the config says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from debate_rl.data.mix import counts
from debate_rl.data.shorten import shorten
from debate_rl.data.sources.instructions import load_instructions
from debate_rl.data.sources.provenance import Source, source_of
from debate_rl.data.splits import sample
from debate_rl.data.stories import Story, same_stories
from debate_rl.data.transcripts import NYU, load_transcripts
from debate_rl.game.transcript import Transcript
from debate_rl.stages.base import Metrics, TrainingStage
from debate_rl.stages.training import start_from, train
from debate_rl.stages.workload import CHARACTERS_PER_TOKEN, Rows, TrainingLoad, rough_tokens
from debate_rl.trainers.common.data_card import DataFacts, Gathered
from debate_rl.trainers.common.rows import SftRow, instruction_rows, sft_rows, speechless
from debate_rl.trainers.common.settings import Kind

if TYPE_CHECKING:
    from debate_rl.runs.run import Run

INSTRUCTIONS = "instructions"
TESTED = "its story is tested on, known by "


HEADER_TOKENS = 200
"""Tokens of a debater's prompt beside its passage, about."""


class SftStage(TrainingStage):
    """Supervised finetuning of the debater on transcripts."""

    kind: Literal["sft"] = "sft"
    transcripts: tuple[str, ...] = Field(default=("lab-human", "lab-gpt"), min_length=1)
    """Sources: lab-human, lab-gpt, nyu (all of it), nyu-human, nyu-gpt, khan, instructions, or a .jsonl file of
    transcripts or legs."""
    mix: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Share of each source in the rows, as numbers of any size; empty takes all rows of every source."""
    paths: dict[str, str] = {}
    """Where sources lie, by name; of the nyu ones the default is questions.path."""
    stories: str | None = None
    """QuALITY's folder, for khan, whose release leaves the stories out; empty is questions.path."""
    licences: dict[str, str] = {}
    """Licence of sources that do not say it themselves (a file, instructions), for the data card."""
    limit: int | None = Field(default=None, ge=1)
    """Use at most so many questions' transcripts of each source."""
    rows: int | None = Field(default=None, ge=1)
    """Train on so many rows, drawn by seed; all are built and counted."""
    passage_tokens: int | None = Field(default=None, ge=1)
    """Shorten longer passages of the prompts to about so many tokens: whole paragraphs that hold no quote of the game
    give way to a visible [...], and the data card counts the rows."""
    start: str | None = None
    """Earlier stage whose adapter is trained further."""

    @model_validator(mode="after")
    def _sources_agree(self) -> SftStage:
        for key, named in (("mix", self.mix), ("paths", self.paths), ("licences", self.licences)):
            for name in named:
                if name not in self.transcripts:
                    raise ValueError(f"{key} names {name!r}, which is not among transcripts: {list(self.transcripts)}")
        missing = [name for name in self.transcripts if self.mix and name not in self.mix]
        if missing:
            raise ValueError(f"mix has no share for {missing[0]!r}; give one, or take it out of transcripts")
        twice = next((name for name in self.transcripts if self.transcripts.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"transcripts has {twice!r} twice; give each once (mix sets how much of it there is)")
        return self

    def references(self) -> set[str]:
        """The stage that it starts from."""
        return {self.start} if self.start else set()

    def trainings(self) -> Iterator[tuple[Kind, TrainingStage]]:
        """One."""
        yield "sft", self

    def input_files(self) -> Iterator[tuple[str, str]]:
        """Transcripts, the folders of sources, and the stories."""
        for source in self.transcripts:
            if source.endswith(".jsonl"):
                yield "transcripts", source
        for source, path in self.paths.items():
            yield f"paths.{source}", path
        if self.stories is not None:
            yield "stories", self.stories

    def training_load(self, run: Run, name: str, like: Path | None) -> TrainingLoad:
        """The rows that its sources give."""
        return TrainingLoad("sft", run.config.models.debater, training_rows(self, run))

    def execute(self, run: Run, out: Path) -> Metrics:
        """Build rows from transcripts, mix them, and train."""
        return _execute(self, run, out)


@dataclass(frozen=True)
class Material:
    """The rows of one source."""

    source: Source
    games: tuple[Transcript, ...] | None
    """None for instructions."""
    rows: list[SftRow]
    verdicts: list[tuple[str, ...]]
    """Of the quotes in each row's speech."""
    left_out: Counter[str]
    notes: Counter[str]


def tested_stories(run: Run) -> list[Story]:
    """The stories that something is measured on: those of the test questions and of weak-to-strong's questions."""
    questions = run.questions("test")
    for other in run.config.stages.values():
        questions = questions + other.tested_questions(run)
    return list({q.cluster: Story(id=q.cluster, text=q.passage or "") for q in questions}.values())


def material(stage: SftStage, run: Run, name: str, tested: Sequence[Story]) -> Material:
    """The rows of a source, without those on stories that are tested."""
    source = source_of(name, stage.licences.get(name))
    if name == INSTRUCTIONS:
        found, empty = load_instructions(stage.paths.get(name))
        rows = instruction_rows(found, source)
        left_out = Counter({"instruction without an answer": empty})
        return Material(source, None, rows, [() for _ in rows], +left_out, Counter())
    wanted = run.config.questions
    corpus = load_transcripts(
        name, run.questions("train", stage.limit), run.protocol(), run.config.seed,
        path=stage.paths.get(name, wanted.path if name in NYU else None), stories=stage.stories or wanted.path,
    )  # fmt: skip
    left_out, notes = Counter(corpus.left_out), Counter(corpus.notes)
    stories = {game.question.cluster: game.question.passage or "" for game in corpus.transcripts}
    leaks = same_stories([Story(id=group, text=text) for group, text in stories.items()], tested)
    left_out.update(f"{TESTED}{leaks[g.question.cluster]}" for g in corpus.transcripts if g.question.cluster in leaks)
    free = [game for game in corpus.transcripts if game.question.cluster not in leaks]
    games = _of_questions(free, stage.limit, run.config.seed)
    left_out["over the limit of questions"] = len(free) - len(games)
    left_out["a speech without words"] = speechless(games)
    shown = games if stage.passage_tokens is None else _shortened(games, stage.passage_tokens, _counter(stage, run))
    cut = [a.question.passage != b.question.passage for a, b in zip(games, shown, strict=True)]
    notes["passage shortened, [...] where paragraphs are missing"] = sum(cut)
    verdicts: list[tuple[str, ...]] = [
        tuple(q.verdict for q in s.quotes) for game in games for s in game.speeches if s.text.strip()
    ]
    licensed = corpus.source if name not in stage.licences else source
    return Material(licensed, tuple(games), sft_rows(shown, licensed), verdicts, +left_out, +notes)


def _of_questions(found: Sequence[Transcript], limit: int | None, seed: int) -> list[Transcript]:
    """The transcripts of at most so many questions, drawn by the question's name."""
    chosen = {
        question.id for question in sample(list({t.question.id: t.question for t in found}.values()), limit, seed)
    }
    return [t for t in found if t.question.id in chosen]


def _counter(stage: SftStage, run: Run) -> Callable[[str], int]:
    """Counts tokens as the model to be trained does."""
    from debate_rl.trainers.common.load import load_tokenizer  # here: it loads transformers

    tokenizer = load_tokenizer(run.resolve(start_from(run, stage.start, run.config.models.debater)[0]))
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _shortened(games: Sequence[Transcript], limit: int, count: Callable[[str], int]) -> list[Transcript]:
    """The games with shorter passages; what they quote stays. A game without a passage stays as it is."""
    found = []
    for game in games:
        passage = game.question.passage
        if not passage:
            found.append(game)
            continue
        quotes = [quote for speech in game.speeches for quote in speech.quotes]
        spans = [(q.passage_start, q.passage_end) for q in quotes if q.passage_start is not None and q.passage_end]
        short = shorten(passage, spans, limit, count, game.id)
        found.append(game.model_copy(update={"question": game.question.model_copy(update={"passage": short})}))
    return found


def drawn(stage: SftStage, materials: Sequence[Material], seed: int) -> list[tuple[int, int]]:
    """Which rows are learnt from: (place of the source, place of its row).

    Raises:
        UserError: a source has too few rows for its share of the mix.
    """
    every = [(at, place) for at, one in enumerate(materials) for place in range(len(one.rows))]
    if not stage.mix:
        return every if stage.rows is None else Random(seed).sample(every, min(stage.rows, len(every)))
    names = list(stage.transcripts)
    wanted = counts(stage.mix, {name: len(one.rows) for name, one in zip(names, materials, strict=True)}, stage.rows)
    return [
        (at, place)
        for at, name in enumerate(names)
        for place in sorted(Random(f"{seed}/{name}").sample(range(len(materials[at].rows)), wanted[name]))
    ]


def _execute(stage: SftStage, run: Run, out: Path) -> Metrics:
    """Build rows from transcripts, mix them, and train."""
    tested = tested_stories(run)
    materials = [material(stage, run, name, tested) for name in stage.transcripts]
    chosen = drawn(stage, materials, run.config.seed)
    used = Counter(at for at, _ in chosen)
    quotes = Counter(verdict for at, place in chosen for verdict in materials[at].verdicts[place])
    gathered = tuple(_gathered(one, used[at]) for at, one in enumerate(materials))
    leaks = {what: sum(one.left_out[f"{TESTED}{what}"] for one in materials) for what in ("id", "title", "text")}
    checks = {
        f"no story is one of the {len(tested)} that are tested on, by id, title or text":
        f"{sum(leaks.values())} games left out for it ({leaks['text']} of them known by their text alone)",
    }  # fmt: skip
    rows = [materials[at].rows[place] for at, place in chosen]
    base, start = start_from(run, stage.start, run.config.models.debater)
    facts = DataFacts(gathered=gathered, quotes=dict(quotes), checks=checks)
    metrics = train(run, stage, "sft", rows, out, base, start, data=facts)
    games = [game for one in materials for game in one.games or ()]
    return {
        **metrics,
        "rows_built": sum(one.built for one in gathered),
        "rows_by_source": {one.source.name: one.used for one in gathered},
        "transcripts": len(games),
        "left_out_test_stories": sum(leaks.values()),
        "left_out_by_text": leaks["text"],
        "valid_quotes": _valid(games),
    }


def _gathered(one: Material, used: int) -> Gathered:
    """What became of a source, for the data card."""
    left_out = dict(one.left_out)
    if used < len(one.rows):
        left_out["row not drawn"] = len(one.rows) - used
    games = None if one.games is None else len(one.games)
    return Gathered(
        source=one.source, games=games, built=len(one.rows), used=used, left_out=left_out, notes=dict(one.notes)
    )


def _valid(games: Sequence[Transcript]) -> float:
    """Share of quotes that stand in the passage, exactly or nearly."""
    quotes = [quote for game in games for speech in game.speeches for quote in speech.quotes]
    return sum(quote.verdict != "invalid" for quote in quotes) / len(quotes) if quotes else 0.0


def training_rows(stage: SftStage, run: Run) -> Rows:
    """The rows that transcripts and instructions give, by their length in characters."""
    # Shortening passages needs the model's tokenizer, which may be out of reach: they are counted as cut.
    plain, limit = stage.model_copy(update={"passage_tokens": None}), stage.passage_tokens
    tested = tested_stories(run)
    found = [material(plain, run, name, tested) for name in stage.transcripts]
    rows = [found[at].rows[place] for at, place in drawn(plain, found, run.config.seed)]
    prompts = [rough_tokens(row.prompt) for row in rows]
    if limit is not None:
        prompts = [min(prompt, limit + HEADER_TOKENS) for prompt in prompts]
    speeches = [len(row.completion) // CHARACTERS_PER_TOKEN for row in rows]
    return Rows(len(rows), sum(prompts) + sum(speeches), max(prompts, default=0), max(speeches, default=0))
