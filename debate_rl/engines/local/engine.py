"""The local engine: transformers models on CPU or GPU, LoRA adapters switched on one base, prompt beginnings shared."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from typing import Any, TypeVar

import numpy as np
import torch

from debate_rl.engines.chat import candidate_ids, prompt_ids, text_before_stop
from debate_rl.engines.local.kv_cache import Encoded, Memory, Usage
from debate_rl.engines.local.models import Loaded, Networks, device_of
from debate_rl.engines.local.prefix import Row
from debate_rl.engines.local.sampling import Continuation, Draw, decode, token_logprobs
from debate_rl.engines.memory import free_memory
from debate_rl.engines.number_formats import Format, float32_head
from debate_rl.engines.opening import request_ids
from debate_rl.engines.request import Choice, Completion, EngineFailure, Message, Request, Scores, answer_distinct
from debate_rl.records import digest

Q = TypeVar("Q", Request, Choice)
Ids = tuple[int, ...]
Pair = tuple[Ids, Ids]
"""Token ids of a prompt and of a candidate."""


class TransformersEngine:
    """Generate and choose with transformers models, loaded on first use.

    Encoded tokens are kept in a trie (see `prefix`): prompts that begin alike are encoded once for all of them, and
    once for later calls as well while there is room.

    Args:
        resolve: turns the name of a model or adapter into a path or hub name.
        device: "cpu", "cuda", "cuda:1"...; None takes a GPU if there is one.
        dtype: number format in which texts are written: "float32", "bfloat16", "float16" or "auto" (the checkpoint's);
            None is the fastest (see `number_formats.text_format`).
        judge_dtype: number format in which probabilities are read. A model that writes in another is loaded twice.
        batch_tokens: tokens in memory at once, padding and new tokens included.
        revision: revision of hub models.
        cache_tokens: tokens whose keys and values are kept between calls, besides those of a batch.
        keep_tokens: give each completion its sampled token ids.
    """

    def __init__(
        self,
        resolve: Callable[[str], str] = str,
        device: str | None = None,
        dtype: Format | None = None,
        batch_tokens: int = 16384,
        revision: str | None = None,
        cache_tokens: int = 32768,
        keep_tokens: bool = False,
        judge_dtype: Format = "float32",
    ) -> None:
        self.keep_tokens = keep_tokens
        self.device = device_of(device)
        self._networks = Networks(resolve, self.device, dtype, revision, judge_dtype)
        self._memory = Memory(batch_tokens, cache_tokens)

    @property
    def usage(self) -> Usage:
        """Tokens requested, encoded, reused and generated so far, and the most that were in memory."""
        return self._memory.usage

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts so far."""
        return self.usage.prompt_tokens

    @property
    def new_tokens(self) -> int:
        """Tokens generated so far."""
        return self.usage.new_tokens

    def release(self) -> None:
        """Free the keys and values kept between calls."""
        self._memory.release()

    def rest(self) -> None:
        """Free the models as well, for example before a training in the same process; they are loaded on next use."""
        self.release()
        self._networks.rest()
        free_memory()

    def hold(self, name: str, model: Any, tokenizer: Any) -> None:
        """Serve a model that is in memory already, such as one that is being trained.

        Args:
            name: model name in requests. It also stands for the weights: give a model that has changed a new name.
            model: used in the state it is in at each call; a peft model answers with the adapter that is switched on.
            tokenizer: its tokenizer.
        """
        self._networks.hold(name, model, tokenizer)

    def let_go(self, name: str) -> None:
        """Forget a held model and everything encoded with it."""
        self._memory.release(_memory_key(self._networks.load(name), self.revision(name, None)))
        self._networks.let_go(name)

    def revision(self, model: str, adapter: str | None) -> str:
        """Fingerprint of the weights of a model with its adapter."""
        return self._networks.revision(model, adapter)

    def generate(self, requests: Sequence[Request]) -> list[Completion | EngineFailure]:
        """Write a text for each request.

        Raises:
            UserError: a model or adapter can not be loaded.
        """
        return answer_distinct(requests, self._generate)

    def choose(self, choices: Sequence[Choice]) -> list[Scores | EngineFailure]:
        """Score the candidates of each choice in one forward pass over shared beginnings.

        Raises:
            UserError: a model or adapter can not be loaded, or a candidate has no tokens.
        """
        return answer_distinct(choices, self._choose)

    def _generate(self, requests: Sequence[Request]) -> list[Completion | EngineFailure]:
        """Texts of distinct requests."""
        answers: dict[Request, Completion | EngineFailure] = {}
        for (model, adapter), group in _by_weights(requests).items():
            loaded = self._networks.load(model)
            prompts = _encode_requests(loaded.tokenizer, group)
            accepted: list[Request] = []
            rows: list[Row] = []
            for request in group:
                prompt = prompts[request.messages, request.opening]
                failure = self._too_long(loaded, prompt, request.sampling.max_new_tokens)
                if failure is None:
                    accepted.append(request)
                    rows.append(Row(prompt, 1))
                else:
                    answers[request] = failure
            extra = [request.sampling.max_new_tokens for request in accepted]
            revision = self.revision(model, adapter)
            with self._networks.adapted(loaded, model, adapter) as network:
                memory_key = _memory_key(loaded, revision)
                for encoded in self._memory.encoded(network, loaded.shares, memory_key, rows, extra):
                    wave = [accepted[index] for index in encoded.members]
                    answers.update(self._decode_wave(loaded, revision, wave, encoded, rows))
        return [answers[request] for request in requests]

    def _decode_wave(
        self, loaded: Loaded, revision: str, requests: Sequence[Request], encoded: Encoded, rows: Sequence[Row]
    ) -> Iterator[tuple[Request, Completion | EngineFailure]]:
        """Continue the rows of one wave, and yield each request with its text."""

        def stopped(row: int, tokens: list[int]) -> bool:
            return _text_before_stop(loaded, tokens, requests[row].sampling.stop) is not None

        assert encoded.continued is not None
        draws = []
        for index, request in zip(encoded.members, requests, strict=True):
            matcher = None if request.grammar is None else loaded.grammars.matcher(request.grammar)
            draws.append(Draw(request.sampling, uniforms(request), rows[index].tokens, matcher))
        continuations = decode(encoded.continued, draws, loaded.ends, stopped)
        for index, request, continuation in zip(encoded.members, requests, continuations, strict=True):
            if continuation.finish == "not a number":
                yield request, _broken_weights(request)
            elif continuation.finish == "grammar":
                yield request, _no_token(request)
            else:
                prompt_tokens = len(rows[index].tokens)
                yield request, self._completion(loaded, revision, request, prompt_tokens, continuation)

    def _completion(
        self, loaded: Loaded, revision: str, request: Request, prompt_tokens: int, continuation: Continuation
    ) -> Completion:
        """The record of one continued row."""
        tokens = continuation.tokens
        self.usage.new_tokens += len(tokens)
        text = _text_before_stop(loaded, tokens, request.sampling.stop)
        if text is None:
            text = loaded.tokenizer.decode(tokens, skip_special_tokens=True)
        drawn: Ids | None = None
        if self.keep_tokens:
            # With its end token: a policy has to learn when to stop.
            end = () if continuation.end_token is None else (continuation.end_token,)
            drawn = (*tokens, *end)
        return Completion(
            text=request.trimmed(text),
            prompt_tokens=prompt_tokens,
            new_tokens=len(tokens),
            finish="length" if continuation.finish == "length" else "stop",
            revision=revision,
            tokens=drawn,
        )

    def _choose(self, choices: Sequence[Choice]) -> list[Scores | EngineFailure]:
        """Scores of distinct choices."""
        answers: dict[Choice, Scores | EngineFailure] = {}
        for (model, adapter), group in _by_weights(choices).items():
            loaded = self._networks.load(model, reads=True)
            revision = self.revision(model, adapter)
            prompts = _encode_prompts(loaded.tokenizer, (choice.messages for choice in group))
            encode_candidate = cache(partial(candidate_ids, loaded.tokenizer))
            pairs_by_choice: dict[Choice, list[Pair]] = {}
            for choice in group:
                prompt = prompts[choice.messages]
                candidates = [encode_candidate(candidate) for candidate in choice.candidates]
                failure = self._too_long(loaded, prompt, max(map(len, candidates)))
                if failure is None:
                    pairs_by_choice[choice] = [(prompt, ids) for ids in candidates]
                else:
                    answers[choice] = failure
            # Choices that differ in one candidate share the pairs of the others.
            distinct_pairs: dict[Pair, None] = {}
            for pairs in pairs_by_choice.values():
                distinct_pairs.update(dict.fromkeys(pairs))
            with self._networks.adapted(loaded, model, adapter) as network, float32_head(network):
                logprob_by_pair = self._score(network, loaded, revision, distinct_pairs)
            for choice, pairs in pairs_by_choice.items():
                logprobs = tuple(logprob_by_pair[pair] for pair in pairs)
                if any(math.isnan(logprob) for logprob in logprobs):
                    answers[choice] = _broken_weights(choice)
                    continue
                answers[choice] = Scores(
                    logprobs=logprobs,
                    prompt_tokens=len(prompts[choice.messages]),
                    revision=revision,
                    candidate_tokens=tuple(len(ids) for _, ids in pairs),
                )
        return [answers[choice] for choice in choices]

    def _score(self, network: Any, loaded: Loaded, revision: str, pairs: Iterable[Pair]) -> dict[Pair, float]:
        """Log-probability of each candidate after its prompt."""
        # The last token of a candidate is predicted, never read. So candidates of one token share the prompt's row.
        pairs_by_row: dict[Ids, list[Pair]] = defaultdict(list)
        for prompt, ids in pairs:
            pairs_by_row[(*prompt, *ids[:-1])].append((prompt, ids))
        rows = []
        for row_tokens, row_pairs in pairs_by_row.items():
            # Logits are requested for the longest candidate of the row; the shorter ones read the last of them.
            longest = max(len(ids) for _, ids in row_pairs)
            rows.append(Row(row_tokens, longest))
        scores: dict[Pair, float] = {}
        memory_key = _memory_key(loaded, revision)
        for encoded in self._memory.encoded(network, loaded.shares, memory_key, rows, [0] * len(rows)):
            # All candidates of a wave are scored in one call, over its logits in one piece.
            positions: list[int] = []
            tokens: list[int] = []
            wave_pairs: list[Pair] = []
            end = 0
            for index in encoded.members:
                end += rows[index].keep
                for pair in pairs_by_row[rows[index].tokens]:
                    ids = pair[1]
                    positions += range(end - len(ids), end)
                    tokens += ids
                    wave_pairs.append(pair)
            logprobs = iter(token_logprobs(torch.cat(encoded.logits), positions, tokens))
            for pair in wave_pairs:
                scores[pair] = sum(next(logprobs) for _ in pair[1])
        return scores

    def _too_long(self, loaded: Loaded, prompt: Ids, new_tokens: int) -> EngineFailure | None:
        """The failure of a prompt that does not fit; None if it fits."""
        total = len(prompt) + new_tokens
        complaint = f"prompt of {len(prompt)} tokens and {new_tokens} new ones exceed"
        if total > loaded.limit:
            return EngineFailure(kind="context", message=f"{complaint} the model's {loaded.limit}")
        limit = self._memory.batch_tokens
        # Models that do not share take one prompt at a time, outside the budget.
        if loaded.shares and total > limit:
            return EngineFailure(kind="budget", message=f"{complaint} engine.batch_tokens {limit}; raise it")
        return None


def uniforms(request: Request) -> np.ndarray:
    """The request's own random numbers, one per token: the same in any batch and on any machine.

    Returns:
        (max_new_tokens,) floats in [0, 1).
    """
    messages = [message.model_dump() for message in request.messages]
    key = digest([messages, request.sampling.model_dump(mode="json"), request.seed])
    stream = np.random.Generator(np.random.Philox(key=int(key, 16)))
    return stream.random(request.sampling.max_new_tokens)


def _memory_key(loaded: Loaded, revision: str) -> str:
    """What keys and values in memory belong to: the weights, in their number format."""
    return f"{revision} {loaded.number_format}"


def _broken_weights(question: Request | Choice) -> EngineFailure:
    """The failure of weights that are damaged, or were trained until they diverged."""
    weights = question.model if question.adapter is None else f"{question.model} with {question.adapter}"
    return EngineFailure(kind="not a number", message=f"{weights} gave logits that are no numbers; train it anew")


def _no_token(request: Request) -> EngineFailure:
    """The failure of a tokenizer without a token for what the grammar asks for next."""
    return EngineFailure(
        kind="grammar",
        message=f"{request.model} has no token that its grammar allows next; its tokenizer can not write the passage",
    )


def _encode_requests(tokenizer: Any, requests: Iterable[Request]) -> dict[tuple[tuple[Message, ...], str], Ids]:
    """Token ids of each distinct prompt with its opening; several draws from one prompt need them once."""
    encoded: dict[tuple[tuple[Message, ...], str], Ids] = {}
    for request in requests:
        key = (request.messages, request.opening)
        if key not in encoded:
            encoded[key] = request_ids(tokenizer, request)
    return encoded


def _encode_prompts(tokenizer: Any, prompts: Iterable[tuple[Message, ...]]) -> dict[tuple[Message, ...], Ids]:
    """Token ids of each distinct prompt; several draws from one prompt need them once."""
    return {messages: prompt_ids(tokenizer, messages) for messages in dict.fromkeys(prompts)}


def _by_weights(questions: Sequence[Q]) -> dict[tuple[str, str | None], list[Q]]:
    """Group questions by model and adapter, so that each adapter is switched on once per call."""
    groups: dict[tuple[str, str | None], list[Q]] = defaultdict(list)
    for question in questions:
        groups[question.model, question.adapter].append(question)
    return groups


def _text_before_stop(loaded: Loaded, tokens: list[int], stops: tuple[str, ...]) -> str | None:
    """The text before the first stop text or the mark of the next turn; None if it contains none."""
    if not stops and not loaded.marks:
        return None
    text: str = loaded.tokenizer.decode(tokens, skip_special_tokens=True)
    return text_before_stop(text, stops, loaded.marks)
