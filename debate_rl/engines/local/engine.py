"""The embedded engine: transformers models on CPU or GPU, LoRA adapters swapped on one base, beginnings shared."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from typing import Any, TypeVar

import numpy as np
import torch

from debate_rl.engines.chat import candidate_ids, prompt_ids
from debate_rl.engines.local.kv_cache import Memory, Usage
from debate_rl.engines.local.models import Loaded, Networks, device_of
from debate_rl.engines.local.prefix import Row
from debate_rl.engines.local.sampling import Draw, decode, token_logprobs
from debate_rl.engines.request import Choice, Completion, EngineFailure, Message, Request, Scores
from debate_rl.records import digest

T = TypeVar("T", Request, Choice)
Ids = tuple[int, ...]


class TransformersEngine:
    """Generate and choose with transformers models, loaded when first asked for.

    What is encoded is kept in a trie of token rows (see `prefix`): a piece that prompts share is encoded once for all
    of them, and once for later calls as well while there is room.

    Args:
        resolve: turns the name of a model or adapter into a path or hub name.
        device: "cpu", "cuda", "cuda:1"...; None takes a GPU where there is one.
        dtype: "float32", "bfloat16", "float16" or "auto" (the checkpoint's); None is float32 on CPU, auto on GPU.
        batch_tokens: tokens in memory at once, padding and new tokens included.
        revision: revision of hub models.
        cache_tokens: tokens whose keys and values are kept between calls, beside those of a batch.
        keep_tokens: give each completion the token ids that were drawn.
    """

    def __init__(
        self,
        resolve: Callable[[str], str] = str,
        device: str | None = None,
        dtype: str | None = None,
        batch_tokens: int = 16384,
        revision: str | None = None,
        cache_tokens: int = 32768,
        keep_tokens: bool = False,
    ) -> None:
        self.keep_tokens = keep_tokens
        self.device = device_of(device)
        self.dtype = dtype or ("float32" if self.device.type == "cpu" else "auto")
        self._networks = Networks(resolve, self.device, self.dtype, revision)
        self._memory = Memory(batch_tokens, cache_tokens)

    @property
    def usage(self) -> Usage:
        """Tokens asked for, encoded, reused and generated so far, and the most that were in memory."""
        return self._memory.usage

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts asked for so far."""
        return self.usage.prompt_tokens

    @property
    def new_tokens(self) -> int:
        """Tokens generated so far."""
        return self.usage.new_tokens

    def release(self) -> None:
        """Let go of what is kept between calls, for example before a training in the same process."""
        self._memory.release()

    def hold(self, name: str, model: Any, tokenizer: Any) -> None:
        """Answer under a name with a model that is in memory already, such as one that is being trained.

        Args:
            name: what requests call it; it is its revision as well, so a model that changes takes a new name.
            model: as it stands when it is asked; a peft model answers with the adapter that is switched on.
            tokenizer: its tokenizer.
        """
        self._networks.hold(name, model, tokenizer)

    def let_go(self, name: str) -> None:
        """Forget a held model, and what was encoded with it."""
        self._memory.release(self.revision(name, None))
        self._networks.let_go(name)

    def revision(self, model: str, adapter: str | None) -> str:
        """Fingerprint of the weights of a model with its adapter."""
        return self._networks.revision(model, adapter)

    def generate(self, requests: Sequence[Request]) -> list[Completion | EngineFailure]:
        """Write a text for each request; equal requests are one.

        Raises:
            UserError: a model or adapter can not be loaded.
        """
        answers: dict[Request, Completion | EngineFailure] = {}
        for (model, adapter), asked in _by_weights(requests).items():
            loaded = self._networks.load(model)
            prompts = _prompts(loaded.tokenizer, (request.messages for request in asked))
            for request in asked:
                failure = self._failure(loaded, prompts[request.messages], request.sampling.max_new_tokens)
                if failure is not None:
                    answers[request] = failure
            left = [request for request in asked if request not in answers]
            rows = [Row(prompts[request.messages], 1) for request in left]
            with self._networks.adapted(loaded, model, adapter) as network:
                for request, completion in self._continue(network, loaded, left, rows):
                    answers[request] = completion
        return [answers[request] for request in requests]

    def choose(self, choices: Sequence[Choice]) -> list[Scores | EngineFailure]:
        """Score the candidates of each choice in one forward pass over shared beginnings.

        Raises:
            UserError: a model or adapter can not be loaded, or a candidate has no tokens.
        """
        answers: dict[Choice, Scores | EngineFailure] = {}
        for (model, adapter), asked in _by_weights(choices).items():
            loaded = self._networks.load(model)
            prompts = _prompts(loaded.tokenizer, (choice.messages for choice in asked))
            ids_of = cache(partial(candidate_ids, loaded.tokenizer))
            wanted: dict[Choice, list[tuple[Ids, Ids]]] = {}
            for choice in asked:
                prompt = prompts[choice.messages]
                options = [ids_of(candidate) for candidate in choice.candidates]
                failure = self._failure(loaded, prompt, max(map(len, options)))
                if failure is None:
                    wanted[choice] = [(prompt, ids) for ids in options]
                else:
                    answers[choice] = failure
            pairs = dict.fromkeys(pair for own in wanted.values() for pair in own)
            with self._networks.adapted(loaded, model, adapter) as network:
                logprobs = self._score(network, loaded, self.revision(model, adapter), pairs)
            for choice, own in wanted.items():
                if any(math.isnan(logprobs[pair]) for pair in own):
                    answers[choice] = _no_numbers(choice)
                    continue
                answers[choice] = Scores(
                    logprobs=tuple(logprobs[pair] for pair in own),
                    prompt_tokens=len(own[0][0]),
                    revision=self.revision(model, adapter),
                )
        return [answers[choice] for choice in choices]

    def _continue(
        self, network: Any, loaded: Loaded, requests: Sequence[Request], rows: Sequence[Row]
    ) -> Iterator[tuple[Request, Completion | EngineFailure]]:
        """Encode rows of one model wave by wave, continue them, and yield each request with its text."""
        if not requests:
            return
        revision = self.revision(requests[0].model, requests[0].adapter)
        extra = [request.sampling.max_new_tokens for request in requests]
        for encoded in self._memory.encoded(network, loaded.shares, revision, rows, extra):
            asked = [requests[index] for index in encoded.members]
            assert encoded.continued is not None
            closing: dict[int, int] = {}
            results = decode(
                encoded.continued, [Draw(r.sampling, uniforms(r)) for r in asked], loaded.ends,
                lambda row, tokens: _stop(loaded.tokenizer, tokens, asked[row].sampling.stop) is not None,  # noqa: B023
                closing,
            )  # fmt: skip
            for at, (index, request, (tokens, ended)) in enumerate(zip(encoded.members, asked, results, strict=True)):
                if ended is None:
                    yield request, _no_numbers(request)
                    continue
                text = loaded.tokenizer.decode(tokens, skip_special_tokens=True)
                cut = _stop(loaded.tokenizer, tokens, request.sampling.stop)
                self.usage.new_tokens += len(tokens)
                completion = Completion(
                    text=(text if cut is None else cut).strip(), prompt_tokens=len(rows[index].tokens),
                    new_tokens=len(tokens), finish="stop" if ended else "length", revision=revision,
                    tokens=(*tokens, *([closing[at]] if at in closing else ())) if self.keep_tokens else None,
                )  # fmt: skip
                yield request, completion

    def _score(
        self, network: Any, loaded: Loaded, revision: str, pairs: Iterable[tuple[Ids, Ids]]
    ) -> dict[tuple[Ids, Ids], float]:
        """Log-probability of each pair's second part after its first."""
        # Candidates of one token share the row of their prompt; longer ones add all but their last token.
        owned: dict[Ids, list[tuple[Ids, Ids]]] = defaultdict(list)
        for prompt, ids in pairs:
            owned[(*prompt, *ids[:-1])].append((prompt, ids))
        rows = [Row(tokens, max(len(ids) for _, ids in own)) for tokens, own in owned.items()]
        found: dict[tuple[Ids, Ids], float] = {}
        for encoded in self._memory.encoded(network, loaded.shares, revision, rows, [0] * len(rows)):
            places: list[int] = []
            tokens: list[int] = []
            asked: list[tuple[Ids, Ids]] = []
            end = 0
            for index in encoded.members:
                end += rows[index].keep
                for prompt, ids in owned[rows[index].tokens]:
                    places += range(end - len(ids), end)
                    tokens += ids
                    asked.append((prompt, ids))
            each = iter(token_logprobs(torch.cat(encoded.logits), places, tokens))
            found.update({pair: sum(next(each) for _ in pair[1]) for pair in asked})
        return found

    def _failure(self, loaded: Loaded, prompt: Ids, more: int) -> EngineFailure | None:
        """Why a prompt can not be answered, or None."""
        said = f"prompt of {len(prompt)} tokens and {more} new ones exceed"
        if len(prompt) + more > loaded.limit:
            return EngineFailure(kind="context", message=f"{said} the model's {loaded.limit}")
        if loaded.shares and len(prompt) + more > self._memory.batch_tokens:
            limit = self._memory.batch_tokens
            return EngineFailure(kind="budget", message=f"{said} engine.batch_tokens {limit}; raise it")
        return None

    def _load(self, name: str) -> Loaded:
        """A model in memory."""
        return self._networks.load(name)


def uniforms(request: Request) -> np.ndarray:
    """The request's own random numbers, one a token: the same whatever is batched beside it, on any machine.

    Returns:
        (max_new_tokens,) floats in [0, 1).
    """
    name = digest([[m.model_dump() for m in request.messages], request.sampling.model_dump(mode="json"), request.seed])
    stream = np.random.Generator(np.random.Philox(key=int(name, 16)))
    return stream.random(request.sampling.max_new_tokens)


def _no_numbers(question: Request | Choice) -> EngineFailure:
    """The failure of weights that are damaged, or were trained until they diverged."""
    weights = question.model if question.adapter is None else f"{question.model} with {question.adapter}"
    return EngineFailure(kind="not a number", message=f"{weights} gave logits that are no numbers; train it anew")


def _prompts(tokenizer: Any, asked: Iterable[tuple[Message, ...]]) -> dict[tuple[Message, ...], Ids]:
    """Token ids of each prompt; draws from one prompt need it once."""
    return {messages: prompt_ids(tokenizer, messages) for messages in dict.fromkeys(asked)}


def _by_weights(questions: Sequence[T]) -> dict[tuple[str, str | None], list[T]]:
    """Different requests by model and adapter, so that each is switched on once."""
    found: dict[tuple[str, str | None], list[T]] = defaultdict(list)
    for question in dict.fromkeys(questions):
        found[(question.model, question.adapter)].append(question)
    return found


def _stop(tokenizer: Any, tokens: list[int], stops: tuple[str, ...]) -> str | None:
    """The text before the first stop text, or None where none stands in it."""
    if not stops:
        return None
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    found = [text.find(stop) for stop in stops if stop in text]
    return text[: min(found)] if found else None
