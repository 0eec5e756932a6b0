"""What a config would run, before anything runs: debates, texts, tokens, and the first prompt of every seat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from debate_rl.config_training import IterationsStage, PreferencesStage, TrainingStage
from debate_rl.engines.chat import prompt_ids
from debate_rl.engines.load import load_tokenizer
from debate_rl.engines.request import Message as ChatMessage
from debate_rl.experiment import Run
from debate_rl.game.prompts import Message, debater_messages, judge_messages
from debate_rl.game.transcript import Origin, open_transcript, read_speech
from debate_rl.game.verdict import Leg
from debate_rl.players.speak import Pool
from debate_rl.records import Record, read_json, scan_log
from debate_rl.stages import preferences
from debate_rl.stages.rehearse import CHARACTERS_PER_TOKEN, WORD, CountingEngine, Habits, rehearse
from debate_rl.trainers.places import COPIES

Sizes = Mapping[str, tuple[float, float]]
"""Of each model: characters of a token, tokens of a word."""


class Share(Record):
    """What one model does in a stage."""

    model: str
    adapter: str | None = None
    texts: int = 0
    verdicts: int = 0
    prompt_tokens: int = 0
    read_tokens: int = 0
    new_tokens: int = 0
    longest: int = 0
    """Tokens of the longest prompt."""


class Planned(Record):
    """One stage before it runs.

    Example:
        Planned(stage="tournament", kind="tournament", debates=960, speeches=2304, prompt_tokens=240000, ...)
    """

    stage: str
    kind: str
    debates: int = 0
    speeches: int = 0
    """Texts to write, the candidates and simulated opponents of Best-of-N players included; equal ones counted once."""
    verdicts: int = 0
    """Forwards that score answers; one for each order in which a judge is asked."""
    prompt_tokens: int = 0
    """Of the prompts of both, shared beginnings counted each time: what a server without a cache would charge for."""
    read_tokens: int = 0
    """The same with each beginning read once."""
    new_tokens: int = 0
    """As many as speeches were measured to have, else at most."""
    note: str = ""
    shares: tuple[Share, ...] = ()
    """The same by model."""


def plan(run: Run, only: set[str] | None = None, like: Path | None = None) -> list[Planned]:
    """Count what each stage would do.

    Args:
        run: the experiment; nothing in its folder is touched.
        only: names of stages; None is all.
        like: folder of a finished run whose speeches are like these will be, in length and variety; None takes what
            the run's own folder holds, else the most that the protocol allows.

    Raises:
        UserError: questions can not be read, or a stage names a player that there is none of.
    """
    sizes = model_sizes(run)
    habits = measured_habits(run.folder if like is None else like)
    engine = CountingEngine(habits, lambda model: size_of(sizes, model)[1])
    return [_planned(run, name, sizes, engine) for name in run.config.stages if only is None or name in only]


def _planned(run: Run, name: str, sizes: Sizes, engine: CountingEngine) -> Planned:
    """Count one stage."""
    stage = run.config.stages[name]
    done = rehearse(run, name, stage, engine)
    shares = []
    for (model, adapter), own in done.asked.items():
        a_token = size_of(sizes, model)[0]
        counts = {"texts": own.texts, "verdicts": own.verdicts, "new_tokens": own.new}
        tokens = {"prompt_tokens": (own.write + own.score) / a_token, "read_tokens": own.once / a_token}
        scaled = {key: round(done.scale * value) for key, value in {**counts, **tokens}.items()}
        shares.append(Share(model=model, adapter=adapter, longest=round(own.longest / a_token), **scaled))
    return Planned(
        stage=name,
        kind=stage.kind,
        debates=done.debates,
        speeches=done.total("texts"),
        verdicts=done.total("verdicts"),
        prompt_tokens=sum(share.prompt_tokens for share in shares),
        read_tokens=sum(share.read_tokens for share in shares),
        new_tokens=sum(share.new_tokens for share in shares),
        note=_note(run, name),
        shares=tuple(shares),
    )


def _note(run: Run, name: str) -> str:
    """What the counts do not say."""
    stage = run.config.stages[name]
    if isinstance(stage, PreferencesStage) and stage.method != "best_of_n":
        return f"{len(preferences.trees(stage, run))} trees"
    if isinstance(stage, TrainingStage | IterationsStage):
        return "trains"
    return "verdicts alone" if stage.kind == "reading" else ""


def model_sizes(run: Run) -> Sizes:
    """How many characters a token of each of the run's models has, and tokens a word, by their tokenizers.

    They are tried on the first prompt of every seat; models whose tokenizer is not on this machine are left out.
    """
    prompts = [tuple(ChatMessage.model_validate(one) for one in messages) for _, messages in first_prompts(run)]
    found: dict[str, tuple[float, float]] = {}
    for model in dict.fromkeys(run.config.models.model_dump().values()):
        tokenizer = _tokenizer(run.resolve(model)) if run.config.engine.kind == "transformers" else None
        if tokenizer is not None:
            text = [message.content for messages in prompts for message in messages]
            tokens = sum(len(prompt_ids(tokenizer, messages)) for messages in prompts)
            found[model] = sum(map(len, text)) / tokens, tokens / sum(len(one.split()) for one in text)
    return found


def _tokenizer(path: str) -> Any | None:
    """The tokenizer of a model folder; None where there is none to be read."""
    if not (Path(path) / "tokenizer.json").is_file():
        return None
    return load_tokenizer(path)


def size_of(sizes: Sizes, model: str) -> tuple[float, float]:
    """Of a model, else about."""
    return sizes.get(model, (float(CHARACTERS_PER_TOKEN), WORD))


def measured_habits(folder: Path) -> Habits:
    """How long the speeches of a run were, by adapter, and how many different ones its models draw from a prompt."""
    sums: dict[str | None, list[int]] = {}
    texts: dict[tuple[str, str], int] = {}
    quotes: dict[tuple[str, str], int] = {}
    for path in sorted(folder.glob("*/legs.jsonl")):
        for _, leg in scan_log(path, Leg):
            for speech in leg.transcript.speeches:
                own = sums.setdefault(speech.origin.adapter, [0, 0])
                own[0] += speech.origin.new_tokens
                own[1] += 1
                valid = "\n".join(quote.text for quote in speech.quotes if quote.verdict != "invalid")
                texts[leg.transcript.question.id, speech.text] = len(speech.text)
                if valid:  # speeches with the same quotes are read once
                    quotes[leg.transcript.question.id, valid] = len(valid)
    if not sums:
        return Habits()
    means = {adapter: tokens / count for adapter, (tokens, count) in sums.items()}
    tokens, count = (sum(column) for column in zip(*sums.values(), strict=True))
    mean_text = sum(texts.values()) / len(texts)
    return Habits(
        means=means,
        mean=tokens / count,
        kinds=_kinds(folder),
        learning=_learning(folder),
        quoting=len(quotes) / len(texts),
        quoted=min(1.0, sum(quotes.values()) / max(len(quotes), 1) / max(mean_text, 1)),
    )


def _kinds(folder: Path) -> int:
    """Different texts that a prompt has, by how many of a pool's candidates differ; 0 where there are no pools."""
    drawn, different, most = 0, 0, 0
    for path in sorted(folder.glob("*/pools.jsonl")):
        for _, pool in scan_log(path, Pool):
            drawn, most = drawn + 1, max(most, len(pool.candidates))
            different += len({speech.text for speech in pool.candidates})
    return _as_many(different / drawn, most) if drawn else 0


def _learning(folder: Path) -> int:
    """The same in online training, by how many of the games that were to be judged differed; 0 where none was."""
    found: list[int] = []
    for path in sorted(folder.glob("*/history.json")):
        steps = [entry for entry in read_json(path) if entry.get("rollout/asked")]
        if not steps:
            continue
        copies = int(read_json(path.parent / "job.json")["job"]["train"].get("num_generations") or COPIES)
        asked, judged, games = (
            sum(entry[f"rollout/{name}"] for entry in steps) for name in ("asked", "judged", "games")
        )
        # Where each speech of one side meets each of the other, a game is new if either is.
        found.append(_as_many((judged / asked) ** (0.5 if asked > games else 1) * copies, copies))
    return round(sum(found) / len(found)) if found else 0


def _as_many(different: float, draws: int) -> int:
    """Texts, each as likely, of which so many draws give so many different ones on average; 0 is without end.

    Of n draws from k texts k (1 - (1 - 1/k)^n) differ on average.
    """
    if different >= 0.99 * draws:
        return 0
    return min(range(1, 200), key=lambda k: abs(k * (1 - (1 - 1 / k) ** draws) - different))


def first_prompts(run: Run) -> list[tuple[str, Sequence[Message]]]:
    """The first prompt of every seat of the run's protocol, on the first training question.

    Returns:
        (seat, messages); the judge is shown placeholders for speeches.
    """
    protocol = run.protocol()
    names = {"A": run.config.models.debater, "B": run.config.models.debater}
    game = open_transcript(run.questions("train", 1)[0], protocol, names, run.config.seed)  # type: ignore[arg-type]
    found: list[tuple[str, Sequence[Message]]] = []
    for turn in range(protocol.turns):
        speakers = game.speakers(turn)
        found += [(f"debater {side}, turn {turn + 1}", debater_messages(game, side, turn)) for side in speakers]
        origin = Origin(player="-")
        game = game.add([read_speech(f"(speech of {side})", game, side, turn, origin) for side in speakers])
    return [*found, ("judge", judge_messages(game, game.present, (0, 1)))]
