"""Score a lab model: does it read, does it quote, and is the world fair to a judge who reads nothing?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch

from debate_rl.data.lab.build import SHAPES
from debate_rl.data.lab.documents import question_line
from debate_rl.data.lab.world import FAMILIES, questions
from debate_rl.data.questions import claims
from debate_rl.engines.load import load_network, load_tokenizer
from debate_rl.errors import existing
from debate_rl.game.question import Question, Split
from debate_rl.game.quotes import check_quotes, locate
from debate_rl.records import read_json, write_text

N, SEED = 400, 1
"""Questions of each family, and seed, of the scores in a model card."""


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
    answers = torch.tensor([[tokenizer.convert_tokens_to_ids(answer) for answer in q.answers] for q in made])
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
    stories = [f"story : {question.passage}\n" if read else "" for question in made]
    return [f"{story}{question_line(q, rng)}\nthe answer is" for story, q in zip(stories, made, strict=True)]


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
    return ((chances > 0.5) == (right > 0.5)).float().mean().item(), ((chances - right) ** 2).mean().item()


def quoting(texts: Sequence[str], made: Sequence[Question], sides: Sequence[int]) -> dict[str, float]:
    """Shares of speeches that quote, whose quotes all stand in the story, and that quote all that backs the answer.

    Args:
        texts: one speech a question.
        made: the questions, with evidence.
        sides: the answer that each speech argues for.

    Returns:
        quoted, valid and decisive (shares), and words, the mean length.
    """
    quoted, valid, decisive = 0, 0, 0
    for text, question, side in zip(texts, made, sides, strict=True):
        quotes = check_quotes(text, question.passage)
        quoted += bool(quotes)
        good = bool(quotes) and all(quote.verdict == "exact" for quote in quotes)
        valid += good
        decisive += good and all(
            any(locate(sentence, quote.text)[0] == "exact" for quote in quotes) for sentence in question.evidence[side]
        )
    words = sum(len(text.split()) for text in texts)
    return {name: count / len(texts) for name, count in
            (("quoted", quoted), ("valid", valid), ("decisive", decisive), ("words", words))}  # fmt: skip


def score(
    path: str | Path, n: int = N, seed: int = SEED, split: Split = "test", families: Sequence[str] = tuple(FAMILIES)
) -> dict[str, float]:
    """All scores of a model folder on held-out stories, told with each family's default knobs.

    Args:
        path: the model.
        n: questions of each family, one a story.
        seed: of stories, of the order in which answers are listed, and of speeches.
        split: where the stories come from.
        families: whose questions the model reads; whereabouts is scored whether it is among them or not.

    Returns:
        open_book_FAMILY for each family, open_book_claims (questions of whereabouts put as claims) and blind_FAMILY
        (the story not shown), each with its Brier score; and of speeches about whereabouts, sampled at temperature .7
        for a random side: quoted, valid, decisive (shares) and words (mean length).

    Raises:
        UserError: no such folder, family or split.
    """
    model, tokenizer = load(path)
    first = questions("whereabouts", split, n, seed, per_story=1)
    asked = {"whereabouts": first} | {
        family: questions(family, split, n, seed, per_story=1) for family in families if family != "whereabouts"
    }
    tests = [(f"open_book_{family}", made, True) for family, made in asked.items()]
    tests.append(("open_book_claims", claims(first, seed), True))
    tests += [(f"blind_{family}", made, False) for family, made in asked.items()]
    scores: dict[str, float] = {}
    for name, made, read in tests:
        chances = probabilities(model, tokenizer, judge_prompts(made, read, seed), made)
        scores[name], scores[f"{name}_brier"] = accuracy(chances, made)
    sides = [Random(f"{seed}/{question.id}").randrange(2) for question in first]
    texts = speak(model, tokenizer, debater_prompts(first, sides, seed), seed=seed)
    return {**scores, **quoting(texts, first, sides)}


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

Scores on {n} test stories of each family, seed {score_seed}, by `debate-rl lab score {name}`; speeches are about
whereabouts and sampled at temperature 0.7, one a story for a random side.

| score | value |
|---|---|
{table}

open_book: right answers of two with the story at hand, by family; `claims` are questions of whereabouts put as claims,
to be called correct or incorrect. blind: without the story. Valid: every quote stands in the story word for word.
Decisive: valid, and every sentence that backs the answer is quoted whole.
"""


def card(path: str | Path, scores: dict[str, float], n: int, seed: int) -> str:
    """Model card of a built model: what it was trained on, for how long, and its scores."""
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
    """What the command of a build has beside the model and the seed."""
    other = name not in SHAPES or record["budget"] != SHAPES[name].tokens
    return (f" --tokens {record['budget']}" if other else "") + (" --compile" if record["compiled"] else "")


def write_card(path: str | Path, scores: dict[str, float], n: int, seed: int) -> Path:
    """Write the model card into the model's folder, as README.md."""
    file = Path(path) / "README.md"
    write_text(file, card(path, scores, n, seed))
    return file
