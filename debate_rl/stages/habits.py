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
from debate_rl.game import run_files
from debate_rl.game.prompts import Message, debater_messages, judge_messages, question_messages
from debate_rl.game.transcript import JudgeQuestion, Origin, open_transcript, read_speech
from debate_rl.game.verdict import JudgedDebate
from debate_rl.judges.readout import wording_of
from debate_rl.players.speak import Pool
from debate_rl.records import read_json, scan_log
from debate_rl.stages.workload import CHARACTERS_PER_TOKEN
from debate_rl.trainers.grpo.groups import COPIES

if TYPE_CHECKING:
    from debate_rl.runs.run import Run

WORD = 1.35
"""Tokens of a word, about; of the lab's models 1."""
Sizes = Mapping[str, tuple[float, float]]
"""Characters of a token and tokens of a word, by model."""


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
        mean = self.means.get(request.adapter, self.mean)
        return most if mean is None else min(most, max(1, round(mean)))


def measured_habits(folder: Path) -> Habits:
    """How long the speeches of a run were, by adapter, and how many different ones its models draw from a prompt."""
    sums: dict[str | None, list[int]] = {}
    texts: dict[tuple[str, str], int] = {}
    quotes: dict[tuple[str, str], int] = {}
    for path in sorted(folder.glob(f"*/{run_files.DEBATES}")):
        for _, leg in scan_log(path, JudgedDebate):
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
    """Different texts that a prompt has, estimated from how many of a pool's candidates differ; 0 without pools."""
    pools, different, largest = 0, 0, 0
    for path in sorted(folder.glob(f"*/{run_files.POOLS}")):
        for _, pool in scan_log(path, Pool):
            pools += 1
            largest = max(largest, len(pool.candidates))
            different += len({speech.text for speech in pool.candidates})
    return _as_many(different / pools, largest) if pools else 0


def _learning(folder: Path) -> int:
    """The same in online training, estimated from how many of the games to be judged differed; 0 where none was."""
    estimates: list[int] = []
    for path in sorted(folder.glob(f"*/{run_files.HISTORY}")):
        steps = [entry for entry in read_json(path) if entry.get("rollout/asked")]
        if not steps:
            continue
        job = read_json(path.parent / "job.json")["job"]
        copies = int(job["train"].get("num_generations") or COPIES)
        asked = sum(entry["rollout/asked"] for entry in steps)
        judged = sum(entry["rollout/judged"] for entry in steps)
        games = sum(entry["rollout/games"] for entry in steps)
        # Where each speech of one side meets each of the other, a game is new if either speech is.
        power = 0.5 if asked > games else 1
        estimates.append(_as_many((judged / asked) ** power * copies, copies))
    return round(sum(estimates) / len(estimates)) if estimates else 0


def _as_many(different: float, draws: int) -> int:
    """Texts, each as likely, of which so many draws give so many different ones on average; 0 is without end.

    Of n draws from k texts k (1 - (1 - 1/k)^n) differ on average.
    """
    if different >= 0.99 * draws:
        return 0
    return min(range(1, 200), key=lambda k: abs(k * (1 - (1 - 1 / k) ** draws) - different))


def model_sizes(run: Run) -> Sizes:
    """Characters of a token and tokens of a word, for each of the run's models, by their tokenizers.

    They are measured on the first prompt of every seat; models whose tokenizer is not on this machine are left out.
    """
    if run.config.engine.kind != "transformers":
        return {}
    prompts = [tuple(map(ChatMessage.model_validate, messages)) for _, messages in first_prompts(run)]
    texts: list[str] = []
    for prompt in prompts:
        texts += [message.content for message in prompt]
    characters = sum(len(text) for text in texts)
    words = sum(len(text.split()) for text in texts)
    sizes: dict[str, tuple[float, float]] = {}
    for model in dict.fromkeys(run.config.models.by_role().values()):
        tokenizer = _tokenizer(run.resolve(model))
        if tokenizer is not None:
            tokens = sum(len(prompt_ids(tokenizer, prompt)) for prompt in prompts)
            sizes[model] = characters / tokens, tokens / words
    models = run.config.models
    for name, folder in run.trained_folders().items():
        stage = run.config.stages.get(name.partition(".")[0])
        base = models.judge if stage is not None and stage.trains_judge else models.debater
        if base in sizes:  # a merged or fully trained model reads as its base does
            sizes[f"{folder}/model"] = sizes[base]
    return sizes


def _tokenizer(path: str) -> Any | None:
    """The tokenizer of a model folder; None where there is none to be read."""
    if not (Path(path) / "tokenizer.json").is_file():
        return None
    return load_tokenizer(path)


def size_of(sizes: Sizes, model: str) -> tuple[float, float]:
    """Characters of a token and tokens of a word of a model; rough values where they were not measured."""
    return sizes.get(model, (float(CHARACTERS_PER_TOKEN), WORD))


def first_prompts(run: Run) -> list[tuple[str, Sequence[Message]]]:
    """The first prompt of every seat of the run's protocol, on the first training question.

    Returns:
        (seat, messages); the judge is shown placeholders for speeches.
    """
    protocol = run.protocol()
    model = run.config.models.debater
    question = run.questions("train", 1)[0]
    game = open_transcript(question, protocol, {"A": model, "B": model}, run.config.seed)
    prompts: list[tuple[str, Sequence[Message]]] = []
    for turn in range(protocol.turns):
        speeches = []
        for side in game.speakers(turn):
            prompts.append((f"debater {side}, turn {turn + 1}", debater_messages(game, side, turn)))
            speeches.append(read_speech(f"(speech of {side})", game, side, turn, Origin(player="-")))
        game = game.add(speeches)
        if protocol.asks_after(turn):
            prompts.append((f"judge, question after turn {turn + 1}", question_messages(game, turn + 1)))
            game = game.ask(JudgeQuestion(turn=turn, text="(question of the judge)", origin=Origin(player="-")))
    wording = wording_of(run.config.judge.readout)
    prompts.append(("judge", judge_messages(game, game.present, (0, 1), reply=wording)))
    return prompts
