"""Supervised finetuning of the debater on transcripts and instructions, mixed as the config says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from debate_rl.data.excerpts import excerpt_of
from debate_rl.data.mix import counts
from debate_rl.data.shorten import shorten
from debate_rl.data.sources.instructions import load_instructions
from debate_rl.data.sources.provenance import Source, source_of
from debate_rl.data.splits import sample
from debate_rl.data.stories import Story, same_stories
from debate_rl.data.transcripts import NYU, load_transcripts
from debate_rl.errors import UserError
from debate_rl.game.transcript import Transcript
from debate_rl.stages.base import TrainingStage
from debate_rl.stages.training import CardFacts, TrainingResult, start_from, train
from debate_rl.stages.workload import CHARACTERS_PER_TOKEN, Rows, TrainingLoad, rough_tokens
from debate_rl.trainers.common.data_card import DataFacts, Gathered
from debate_rl.trainers.common.rows import SftRow, instruction_rows, sft_rows, speechless
from debate_rl.trainers.common.settings import Kind

if TYPE_CHECKING:
    from debate_rl.runs.run import Run

INSTRUCTIONS = "instructions"
OVER = "longer than train.max_length"
TESTED = "its story is tested on, known by "


HEADER_TOKENS = 200
"""Tokens of a debater's prompt beside its passage, about."""


class SftResult(TrainingResult):
    """The training, and where its rows come from."""

    rows_built: int
    """Rows of all sources, of which the mix draws some."""
    rows_by_source: dict[str, int]
    """Rows trained on."""
    transcripts: int
    left_out_test_stories: int
    """Games on stories that are tested on."""
    left_out_by_text: int
    """Games among them whose story is known by its text alone: under another id and title."""
    valid_quotes: float
    """Share of the transcripts' quotes that stand in the passage."""


class SftStage(TrainingStage):
    """Supervised finetuning of the debater on transcripts."""

    kind: Literal["sft"] = "sft"
    transcripts: tuple[str, ...] = Field(default=("lab-human", "lab-gpt"), min_length=1)
    """Sources: lab-human, lab-gpt, nyu (all of it), nyu-human, nyu-gpt, khan, instructions, or a .jsonl file of
    transcripts or judged debates."""
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
    """Train on so many rows, drawn by seed; all are built and counted. Others take the place of rows longer than
    `train.max_length`."""
    passage_tokens: int | None = Field(default=None, ge=1)
    """Shorten longer passages of the prompts to about so many tokens: whole paragraphs that hold no quote of the game,
    drawn by seed, give way to a visible [...], and the data card counts the rows. Empty takes
    `protocol.passage_tokens`: what a game quotes stays then too, and of the rest what is nearest to the question."""
    start: str | None = None
    """Earlier stage whose adapter is trained further."""

    @model_validator(mode="after")
    def _sources_agree(self) -> SftStage:
        for key, named in (("mix", self.mix), ("paths", self.paths), ("licences", self.licences)):
            for name in named:
                if name not in self.transcripts:
                    raise ValueError(f"{key} names {name!r}, which is not among transcripts: {list(self.transcripts)}")
        for name, times in Counter(self.transcripts).items():
            if self.mix and name not in self.mix:
                raise ValueError(f"mix has no share for {name!r}; give one, or take it out of transcripts")
            if times > 1:
                raise ValueError(f"transcripts has {name!r} twice; give each once (mix sets how much of it there is)")
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

    def execute(self, run: Run, out: Path) -> SftResult:
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
    """Verdicts on the quotes in each row's speech."""
    left_out: Counter[str]
    notes: Counter[str]


def tested_stories(run: Run) -> list[Story]:
    """The stories that something is measured on: those of the test questions and of weak-to-strong's questions."""
    questions = run.questions("test")
    for other in run.config.stages.values():
        questions = questions + other.tested_questions(run)
    stories: dict[str, Story] = {}
    for question in questions:
        stories[question.cluster] = Story(id=question.cluster, text=question.passage or "")
    return list(stories.values())


def material(stage: SftStage, run: Run, name: str, tested: Sequence[Story], shorten_passages: bool = True) -> Material:
    """The rows of a source, without those on stories that are tested."""
    source = source_of(name, stage.licences.get(name))
    if name == INSTRUCTIONS:
        instructions, empty = load_instructions(stage.paths.get(name))
        rows = instruction_rows(instructions, source)
        left_out = Counter({"instruction without an answer": empty})
        return Material(source, None, rows, [() for _ in rows], +left_out, Counter())
    settings = run.config.questions
    corpus = load_transcripts(
        name,
        run.questions("train", stage.limit),
        run.protocol(),
        run.config.seed,
        path=stage.paths.get(name, settings.path if name in NYU else None),
        stories=stage.stories or settings.path,
    )
    left_out, notes = Counter(corpus.left_out), Counter(corpus.notes)
    stories = {game.question.cluster: game.question.passage or "" for game in corpus.transcripts}
    leaks = same_stories([Story(id=group, text=text) for group, text in stories.items()], tested)
    untested = []
    for game in corpus.transcripts:
        leak = leaks.get(game.question.cluster)
        if leak is None:
            untested.append(game)
        else:
            left_out[f"{TESTED}{leak}"] += 1
    games = _of_questions(untested, stage.limit, run.config.seed)
    left_out["over the limit of questions"] = len(untested) - len(games)
    left_out["a speech without words"] = speechless(games)
    shown = _shortened(games, stage, run) if shorten_passages else games
    shortened = sum(game.question.excerpt is not None for game in shown)
    notes["passage shortened, [...] where paragraphs are missing"] = shortened
    # Quotes are checked against the whole passage, whatever the row shows of it.
    verdicts: list[tuple[str, ...]] = []
    for game in games:
        for speech in game.speeches:
            if speech.text.strip():
                verdicts.append(tuple(quote.verdict for quote in speech.quotes))
    # A licence in the config goes before the source's own.
    licensed = source if name in stage.licences else corpus.source
    return Material(licensed, tuple(games), sft_rows(shown, licensed), verdicts, +left_out, +notes)


def _of_questions(games: Sequence[Transcript], limit: int | None, seed: int) -> list[Transcript]:
    """The games of at most `limit` questions, drawn by the questions' ids."""
    questions = {game.question.id: game.question for game in games}
    chosen = {question.id for question in sample(list(questions.values()), limit, seed)}
    return [game for game in games if game.question.id in chosen]


def _token_counter(stage: SftStage, run: Run) -> Callable[[str], int]:
    """A function that counts tokens as the model to be trained does."""
    from debate_rl.trainers.common.load import load_tokenizer  # here: it loads transformers

    base, _ = start_from(run, stage.start, run.config.models.debater)
    tokenizer = load_tokenizer(run.resolve(base))
    tokenizer.model_max_length = int(1e9)  # it would warn about each story that is longer than the model reads

    # Many games are about one story, whose paragraphs are counted once: else an archive takes minutes.
    @lru_cache(maxsize=1 << 15)
    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    return count


def _shortened(games: Sequence[Transcript], stage: SftStage, run: Run) -> list[Transcript]:
    """The games with excerpts of long passages; what they quote stays, and what was shown when they were played."""
    limit = stage.passage_tokens or run.config.protocol.passage_tokens
    if limit is None:
        return list(games)
    count = _token_counter(stage, run)
    shortened = []
    for game in games:
        question = game.question
        excerpt = question.excerpt
        spans = []
        for speech in game.speeches:
            for quote in speech.quotes:
                if quote.passage_start is not None and quote.passage_end:
                    spans.append((quote.passage_start, quote.passage_end))
        if question.passage and stage.passage_tokens:
            short = shorten(question.passage, spans, limit, count, game.id)
            excerpt = None if short == question.passage else short
        elif question.passage and excerpt is None:
            excerpt = excerpt_of(question, limit, count, spans)
        shortened.append(game.model_copy(update={"question": question.model_copy(update={"excerpt": excerpt})}))
    return shortened


def drawn(stage: SftStage, materials: Sequence[Material], seed: int) -> list[tuple[int, int]]:
    """Choose the rows to train on.

    Returns:
        (index of the source, index of its row) for each.

    Raises:
        UserError: a source has too few rows for its share of the mix.
    """
    if not stage.mix:
        rows: list[tuple[int, int]] = []
        for source, material_ in enumerate(materials):
            rows += [(source, row) for row in range(len(material_.rows))]
        if stage.rows is None:
            return rows
        return Random(seed).sample(rows, min(stage.rows, len(rows)))
    names = list(stage.transcripts)
    available = {name: len(material_.rows) for name, material_ in zip(names, materials, strict=True)}
    shares = counts(stage.mix, available, stage.rows)
    chosen: list[tuple[int, int]] = []
    for source, name in enumerate(names):
        # A draw for each source, so that another source's share does not change it.
        sampled = Random(f"{seed}/{name}").sample(range(available[name]), shares[name])
        chosen += [(source, row) for row in sorted(sampled)]
    return chosen


def within_length(
    materials: Sequence[Material], chosen: Sequence[tuple[int, int]], fits: Callable[[SftRow], bool], seed: int
) -> tuple[list[tuple[int, int]], Counter[int]]:
    """Replace rows that are too long by others of their source, drawn by seed, while there are any.

    Returns:
        (index of the source, index of its row) for each row to train on; and the rows found too long, by source.
    """
    spare: dict[int, list[int]] = {}
    for source, material_ in enumerate(materials):
        taken = {row for at, row in chosen if at == source}
        spare[source] = [row for row in range(len(material_.rows)) if row not in taken]
        Random(f"{seed}/instead/{source}").shuffle(spare[source])
    kept: list[tuple[int, int]] = []
    over: Counter[int] = Counter()
    for source, drawn_row in chosen:
        candidates = [drawn_row]
        while candidates:
            row = candidates.pop()
            if fits(materials[source].rows[row]):
                kept.append((source, row))
            else:
                over[source] += 1
                candidates = [spare[source].pop()] if spare[source] else []
    return kept, over


def _fits(stage: SftStage, run: Run, limit: int) -> Callable[[SftRow], bool]:
    """A function that says whether a row with its speech is short enough for the training."""
    from debate_rl.trainers.common.load import load_tokenizer  # here: it loads transformers
    from debate_rl.trainers.common.tokens import Encoder

    base, _ = start_from(run, stage.start, run.config.models.debater)
    tokenizer = load_tokenizer(run.resolve(base))
    tokenizer.model_max_length = int(1e9)
    encoder = Encoder(tokenizer)

    def fits(row: SftRow) -> bool:
        prompt, (speech,) = encoder.encode(row.prompt, row.completion)
        return len(prompt) + len(speech) <= limit

    return fits


def _selected(
    stage: SftStage, run: Run, out: Path, materials: Sequence[Material]
) -> tuple[list[tuple[int, int]], Counter[int]]:
    """The rows to train on and those found too long by source, as said before the training.

    Raises:
        UserError: no row is short enough.
    """
    seed = run.config.seed
    chosen = drawn(stage, materials, seed)
    over: Counter[int] = Counter()
    limit = stage.train.get("max_length")
    if stage.rows is not None and limit is not None:
        chosen, over = within_length(materials, chosen, _fits(stage, run, int(limit)), seed)
        if not chosen:
            raise UserError(
                f"stages.{run.name_of(out)}: every row is {OVER} {limit}; raise it, or set passage_tokens to show less "
                "of the passages"
            )
    built = sum(len(one.rows) for one in materials)
    asked = "" if stage.rows is None or stage.rows == len(chosen) else f" (rows: {stage.rows} asked for)"
    run.say(f"  training on {len(chosen):,} of {built:,} rows{asked}")
    for reason, count in _all_left_out(materials, over).items():
        run.say(f"  left out: {count:,} {reason}")
    silent = sum(not materials[source].verdicts[row] for source, row in chosen)
    if silent:
        run.say(f"  {silent:,} of the {len(chosen):,} quote nothing")
    return chosen, over


def _all_left_out(materials: Sequence[Material], over: Counter[int]) -> Counter[str]:
    """What all sources leave out, by reason."""
    reasons: Counter[str] = Counter()
    for one in materials:
        reasons.update(one.left_out)
    if over:
        reasons[f"rows {OVER}"] = over.total()
    return +reasons


def _execute(stage: SftStage, run: Run, out: Path) -> SftResult:
    """Build rows from transcripts, mix them, and train."""
    tested = tested_stories(run)
    materials = []
    for name in stage.transcripts:
        run.say(f"  reading {name}")
        materials.append(material(stage, run, name, tested))
    chosen, over = _selected(stage, run, out, materials)
    rows_used = Counter(source for source, _ in chosen)
    quotes: Counter[str] = Counter()
    for source, row in chosen:
        quotes.update(materials[source].verdicts[row])
    gathered = tuple(_gathered(one, rows_used[source], over[source]) for source, one in enumerate(materials))
    leaks: Counter[str] = Counter()
    for one in materials:
        for known_by in ("id", "title", "text"):
            leaks[known_by] += one.left_out[f"{TESTED}{known_by}"]
    check = f"no story is one of the {len(tested)} that are tested on, by id, title or text"
    outcome = f"{leaks.total()} games left out for it ({leaks['text']} of them known by their text alone)"
    facts = DataFacts(gathered=gathered, quotes=dict(quotes), checks={check: outcome})
    rows = [materials[source].rows[row] for source, row in chosen]
    base, start = start_from(run, stage.start, run.config.models.debater)
    metrics = train(run, stage, "sft", rows, out, base, start, CardFacts(data=facts))
    games: list[Transcript] = []
    for one in materials:
        games += one.games or ()
    return SftResult(
        **metrics,
        rows_built=sum(one.built for one in gathered),
        rows_by_source={one.source.name: one.used for one in gathered},
        transcripts=len(games),
        left_out_test_stories=leaks.total(),
        left_out_by_text=leaks["text"],
        valid_quotes=_valid_share(games),
    )


def _gathered(one: Material, used: int, over: int) -> Gathered:
    """What became of a source, for the data card."""
    left_out = dict(one.left_out)
    if over:
        left_out[f"row {OVER}"] = over
    if used + over < len(one.rows):
        left_out["row not drawn"] = len(one.rows) - used - over
    games = None if one.games is None else len(one.games)
    return Gathered(
        source=one.source, games=games, built=len(one.rows), used=used, left_out=left_out, notes=dict(one.notes)
    )


def _valid_share(games: Sequence[Transcript]) -> float:
    """Share of quotes that stand in the passage, exactly or nearly; 0 without quotes."""
    valid, quotes = 0, 0
    for game in games:
        for speech in game.speeches:
            for quote in speech.quotes:
                quotes += 1
                valid += quote.verdict != "invalid"
    return valid / max(quotes, 1)


def training_rows(stage: SftStage, run: Run) -> Rows:
    """Estimate the rows that the sources give by their length in characters."""
    # Shortening passages needs the model's tokenizer, which may be out of reach: prompts are counted as cut instead.
    limit = stage.passage_tokens or run.config.protocol.passage_tokens
    tested = tested_stories(run)
    materials = [material(stage, run, name, tested, shorten_passages=False) for name in stage.transcripts]
    rows = [materials[source].rows[row] for source, row in drawn(stage, materials, run.config.seed)]
    prompts = [rough_tokens(row.prompt) for row in rows]
    if limit is not None:
        prompts = [min(prompt, limit + HEADER_TOKENS) for prompt in prompts]
    speeches = [len(row.completion) // CHARACTERS_PER_TOKEN for row in rows]
    return Rows(len(rows), sum(prompts) + sum(speeches), max(prompts, default=0), max(speeches, default=0))
