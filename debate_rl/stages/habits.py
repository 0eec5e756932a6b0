"""How a run's models write: lengths of speeches and how many different ones a prompt draws, measured in run folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debate_rl.engines.chat import prompt_ids
from debate_rl.engines.load import load_tokenizer
from debate_rl.engines.request import Message as ChatMessage
from debate_rl.engines.request import Request
from debate_rl.game.prompts import Message, debater_messages, judge_messages
from debate_rl.game.transcript import Origin, open_transcript, read_speech
from debate_rl.game.verdict import Leg
from debate_rl.players.speak import Pool
from debate_rl.records import read_json, scan_log
from debate_rl.stages.workload import CHARACTERS_PER_TOKEN
from debate_rl.trainers.grpo.groups import COPIES

if TYPE_CHECKING:
    from debate_rl.runs.run import Run

WORD = 1.35
"""Tokens of a word, about; of the lab's models 1."""
Sizes = Mapping[str, tuple[float, float]]
"""Of each model: characters of a token, tokens of a word."""


@dataclass(frozen=True)
class Habits:
    """What is known of how a run's models write.

    Attributes:
        means: tokens of a speech, by adapter.
        mean: over all; None where nothing is known.
        kinds: so many different texts a model draws from one prompt, each as likely; 0 is without end.
        learning: the same of a policy in online training, which draws at a temperature of its own.
        quoting: different sets of valid quotes for each different speech.
        quoted: length of such a set, as a share of a speech's.
    """

    means: Mapping[str | None, float] = field(default_factory=dict)
    mean: float | None = None
    kinds: int = 0
    learning: int = 0
    quoting: float = 1.0
    quoted: float = 1.0

    def tokens(self, request: Request) -> int:
        """How many tokens an answer is expected to have, else the most that it may have."""
        most = request.sampling.max_new_tokens
        found = self.means.get(request.adapter, self.mean)
        return most if found is None else min(most, max(1, round(found)))


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
