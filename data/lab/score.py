"""Scores of a lab model: whether it reads, whether it quotes, and whether it can answer without reading."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch

from debate_rl.data.lab.build import SHAPES
from debate_rl.data.lab.documents import question_line
from debate_rl.data.lab.world import questions
from debate_rl.data.questions import claims
from debate_rl.engines.load import load_network, load_tokenizer
from debate_rl.errors import existing
from debate_rl.game.question import Question, Split
from debate_rl.game.quotes import check_quotes, locate
from debate_rl.records import read_json, write_text

N, SEED = 400, 1
"""Number of questions, and seed, of the scores in a model card."""


def load(path: str | Path) -> tuple[Any, Any]:
    """Model and tokenizer of a folder, through the ordinary Auto classes."""
    from transformers import AutoModelForCausalLM

    folder = str(existing(path, "lab model"))
    return load_network(AutoModelForCausalLM, folder, "auto").eval(), load_tokenizer(folder)


def encode(tokenizer: Any, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
    """User prompts as padded model input, ending where the assistant begins."""
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    texts = [tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats]
    encoded = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}


@torch.no_grad()
def probabilities(
    model: Any, tokenizer: Any, prompts: Sequence[str], made: Sequence[Question], rows: int = 64
) -> torch.Tensor:
    """Probability of answer 0 against answer 1 after each prompt, shape (questions,); answers are one token each."""
    answers = torch.tensor([tokenizer.convert_tokens_to_ids(list(question.answers)) for question in made])
    pieces = []
    for start in range(0, len(prompts), rows):
        logits = model(**encode(tokenizer, prompts[start : start + rows])).logits[:, -1]
        pieces.append(logits.gather(1, answers[start : start + rows]).softmax(-1)[:, 0])
    return torch.cat(pieces)


@torch.no_grad()
def speak(
    model: Any, tokenizer: Any, prompts: Sequence[str], temperature: float = 0.7, seed: int = 0, rows: int = 64
) -> list[str]:
    """Sample one speech per prompt, at most 64 tokens, from the whole distribution."""
    torch.manual_seed(seed)
    texts: list[str] = []
    for start in range(0, len(prompts), rows):
        inputs = encode(tokenizer, prompts[start : start + rows])
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0, "max_new_tokens": 64}
        out = model.generate(**inputs, **sampling)
        texts += tokenizer.batch_decode(out[:, inputs["input_ids"].size(1) :], skip_special_tokens=True)
    return texts


def judge_prompts(made: Sequence[Question], read: bool, seed: int = 0) -> list[str]:
    """Prompts of a judge who reads the story (open-book) or nothing but the question (blind)."""
    rng = Random(seed)
    prompts = []
    for question in made:
        story = f"story : {question.passage}\n" if read else ""
        prompts.append(f"{story}{question_line(question, rng)}\nthe answer is")
    return prompts


def debater_prompts(made: Sequence[Question], sides: Sequence[int], seed: int = 0) -> list[str]:
    """First-turn prompts of a debater for a side of each question."""
    rng = Random(seed)
    return [
        f"story : {q.passage}\n{question_line(q, rng)}\nargue for {q.answers[side]}"
        for q, side in zip(made, sides, strict=True)
    ]


def accuracy(chances: torch.Tensor, made: Sequence[Question]) -> tuple[float, float]:
    """Accuracy and Brier score (0 to 1) of probabilities of answer 0."""
    right = torch.tensor([float(question.correct == 0) for question in made])
    hits = (chances > 0.5) == (right > 0.5)
    return hits.float().mean().item(), ((chances - right) ** 2).mean().item()


def quoting(texts: Sequence[str], made: Sequence[Question], sides: Sequence[int]) -> dict[str, float]:
    """Shares of speeches that quote, that quote only what stands in the story, and that quote all of the evidence.

    Args:
        texts: one speech a question.
        made: questions with evidence.
        sides: index of the answer that each speech argues for.

    Returns:
        quoted, valid and decisive (shares), and words, the mean length.
    """
    quoted = valid = decisive = 0
    for text, question, side in zip(texts, made, sides, strict=True):
        quotes = check_quotes(text, question.passage)
        quoted += bool(quotes)
        all_exact = bool(quotes) and all(quote.verdict == "exact" for quote in quotes)
        valid += all_exact
        spoken = [quote.text for quote in quotes]
        decisive += all_exact and all(_is_quoted(sentence, spoken) for sentence in question.evidence[side])
    words = sum(len(text.split()) for text in texts)
    return {
        "quoted": quoted / len(texts),
        "valid": valid / len(texts),
        "decisive": decisive / len(texts),
        "words": words / len(texts),
    }


def _is_quoted(sentence: str, quotes: Sequence[str]) -> bool:
    """Whether a sentence stands whole in one of the quotes."""
    return any(locate(sentence, quote)[0] == "exact" for quote in quotes)


def score(path: str | Path, n: int = N, seed: int = SEED, split: Split = "test") -> dict[str, float]:
    """All scores of a model folder on held-out stories, told with the default knobs.

    Args:
        path: the model.
        n: number of questions, one a story.
        seed: seed of stories, of the order in which answers are listed, and of speeches.
        split: split that the stories come from.

    Returns:
        open_book_whereabouts, open_book_claims (the questions put as claims) and blind_whereabouts (the story not
        shown), each with its Brier score; and for speeches, sampled at temperature .7 for a random side: quoted, valid,
        decisive (shares) and words (mean length).

    Raises:
        UserError: no such folder or split.
    """
    model, tokenizer = load(path)
    asked = questions("whereabouts", split, n, seed, per_story=1)
    tests = (
        ("open_book_whereabouts", asked, True),
        ("open_book_claims", claims(asked, seed), True),
        ("blind_whereabouts", asked, False),
    )
    scores: dict[str, float] = {}
    for name, test_questions, read in tests:
        chances = probabilities(model, tokenizer, judge_prompts(test_questions, read, seed), test_questions)
        scores[name], scores[f"{name}_brier"] = accuracy(chances, test_questions)
    sides = [Random(f"{seed}/{question.id}").randrange(2) for question in asked]
    texts = speak(model, tokenizer, debater_prompts(asked, sides, seed), seed=seed)
    return {**scores, **quoting(texts, asked, sides)}


CARD = """---
library_name: transformers
license: apache-2.0
pipeline_tag: text-generation
---
# {name}

A {parameters:,}-parameter Llama for the debate lab (`data/lab/README.md`): it reads short generated stories, answers
questions about them and argues for either answer with quotes. It knows about {words:,} words and nothing of the real
world. Loaded by `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained` with no further code.

| training | |
|---|---|
| data | stories of the train split, as `debate_rl.data.lab.documents` words them |
| tokens, steps | {tokens:,} (padding included), {steps:,} |
| minutes | {minutes} on {device}, float32 |
| seed | {seed} |
| command | `debate-rl lab build --model {name} --seed {seed}{options}` |

Scores on {n} test stories, seed {score_seed}, by `debate-rl lab score {name}`; speeches are
sampled at temperature 0.7, one a story for a random side.

| score | value |
|---|---|
{table}

open_book: right answers of two with the story at hand; `claims` are the questions put as claims, to be called correct
or incorrect. blind: without the story. Valid: every quote stands in the story word for word.
Decisive: valid, and every sentence that backs the answer is quoted whole.
"""


def card(path: str | Path, scores: dict[str, float], n: int, seed: int) -> str:
    """Fill in the model card of a built model: what it was trained on, for how long, and its scores."""
    model, tokenizer = load(path)
    record = read_json(Path(path) / "training.json")
    return CARD.format(
        name=Path(path).name,
        parameters=model.num_parameters(),
        words=len(tokenizer),
        n=n,
        score_seed=seed,
        options=_options(Path(path).name, record),
        table="\n".join(f"| {name} | {value:.3f} |" for name, value in scores.items()),
        **{key: record[key] for key in ("tokens", "steps", "minutes", "device", "seed")},
    )


def _options(name: str, record: dict[str, Any]) -> str:
    """Options of the build command other than the model and the seed."""
    options = ""
    if name not in SHAPES or record["budget"] != SHAPES[name].tokens:
        options += f" --tokens {record['budget']}"
    if record["compiled"]:
        options += " --compile"
    return options


def write_card(path: str | Path, scores: dict[str, float], n: int, seed: int) -> Path:
    """Write the model card into the model's folder, as README.md."""
    file = Path(path) / "README.md"
    write_text(file, card(path, scores, n, seed))
    return file
