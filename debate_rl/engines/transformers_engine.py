"""The embedded engine: transformers models on CPU or GPU, LoRA adapters swapped on one base, beginnings shared."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch

from debate_rl.engines.chat import candidate_ids, prompt_ids
from debate_rl.engines.decoding import Draw, candidate_logprobs, decode, encode
from debate_rl.engines.prefix import Group, Row, waves
from debate_rl.engines.request import Choice, Completion, EngineFailure, Request, Scores
from debate_rl.engines.weights import check_adapter, check_weights, fingerprint
from debate_rl.errors import UserError
from debate_rl.records import digest

T = TypeVar("T", Request, Choice)


@dataclass
class _Loaded:
    """A model in memory with its tokenizer and the names of the adapters it holds."""

    model: Any
    tokenizer: Any
    ends: frozenset[int]
    limit: int
    budget: int
    """Tokens in memory at once."""
    adapters: dict[str, str] = field(default_factory=dict)


class TransformersEngine:
    """Generate and choose with transformers models, loaded when first asked for.

    Args:
        resolve: turns the name of a model or adapter into a path or hub name.
        device: "cpu", "cuda", "cuda:1"...; None takes a GPU where there is one.
        dtype: "float32", "bfloat16", "float16" or "auto" (the checkpoint's); None is float32 on CPU, auto on GPU.
        batch_tokens: tokens in memory at once, padding and new tokens included.
        revision: revision of hub models.
    """

    def __init__(
        self,
        resolve: Callable[[str], str] = str,
        device: str | None = None,
        dtype: str | None = None,
        batch_tokens: int = 16384,
        revision: str | None = None,
    ) -> None:
        self.device = _device(device)
        self.dtype = dtype or ("float32" if self.device.type == "cpu" else "auto")
        self.batch_tokens = batch_tokens
        self.hub_revision = revision
        self._resolve = resolve
        self._models: dict[str, _Loaded] = {}
        self._fingerprint = cache(fingerprint)
        self.prompt_tokens = 0
        self.encoded_tokens = 0
        self.new_tokens = 0

    def revision(self, model: str, adapter: str | None) -> str:
        """Fingerprint of the weights of a model with its adapter."""
        base = self._fingerprint(self._resolve(model))
        return base if adapter is None else digest([base, self._fingerprint(self._resolve(adapter))])

    def generate(self, requests: Sequence[Request]) -> list[Completion | EngineFailure]:
        """Write a text for each request.

        Raises:
            UserError: a model or adapter can not be loaded.
        """
        answers: list[Completion | EngineFailure | None] = [None] * len(requests)
        for (model, adapter), indices in _by_weights(requests).items():
            loaded = self._load(model)
            rows = [Row(prompt_ids(loaded.tokenizer, requests[i].messages), 1) for i in indices]
            extra = [requests[i].sampling.max_new_tokens for i in indices]
            fits = self._fitting(loaded, rows, extra, indices, answers)
            rows, asked = [rows[at] for at in fits], [requests[indices[at]] for at in fits]
            limits = [extra[at] for at in fits]
            with self._adapted(loaded, model, adapter) as network:
                for wave in waves(rows, limits, loaded.budget):
                    for at, completion in self._continue(network, loaded, wave, rows, asked):
                        answers[indices[fits[at]]] = completion
        return [answer for answer in answers if answer is not None]

    def choose(self, choices: Sequence[Choice]) -> list[Scores | EngineFailure]:
        """Score the candidates of each choice in one forward pass over shared beginnings.

        Raises:
            UserError: a model or adapter can not be loaded, or a candidate has no tokens.
        """
        answers: list[Scores | EngineFailure | None] = [None] * len(choices)
        for (model, adapter), indices in _by_weights(choices).items():
            loaded = self._load(model)
            prompts = [prompt_ids(loaded.tokenizer, choices[i].messages) for i in indices]
            wanted = [[candidate_ids(loaded.tokenizer, c) for c in choices[i].candidates] for i in indices]
            longest = [max(len(ids) for ids in options) for options in wanted]
            fits = self._fitting(loaded, [Row(p, 1) for p in prompts], longest, indices, answers)
            # Candidates of one token share the row of their prompt; longer ones add all but their last token.
            rows: dict[tuple[int, ...], Row] = {}
            for at in fits:
                for ids in wanted[at]:
                    key = (*prompts[at], *ids[:-1])
                    rows[key] = Row(key, max(len(ids), rows[key].keep if key in rows else 0))
            with self._adapted(loaded, model, adapter) as network:
                logits = self._row_logits(network, list(rows.values()), loaded.budget)
            for at in fits:
                found = [logits[(*prompts[at], *ids[:-1])] for ids in wanted[at]]
                scores = tuple(candidate_logprobs(seen, ids) for seen, ids in zip(found, wanted[at], strict=True))
                answers[indices[at]] = Scores(
                    logprobs=scores, prompt_tokens=len(prompts[at]), revision=self.revision(model, adapter)
                )
        return [answer for answer in answers if answer is not None]

    def _continue(
        self, network: Any, loaded: _Loaded, wave: list[Group], rows: list[Row], requests: list[Request]
    ) -> Iterator[tuple[int, Completion]]:
        """Encode one wave of rows, continue it, and yield each row's index with its text."""
        members = [index for group in wave for index in group.members]
        asked = [requests[index] for index in members]
        encoded = encode(network, rows, wave)
        self._count(rows, wave)
        results = decode(
            network, encoded, [Draw(r.sampling, uniforms(r)) for r in asked], loaded.ends,
            lambda row, tokens: _stop(loaded.tokenizer, tokens, asked[row].sampling.stop) is not None,
        )  # fmt: skip
        for index, request, (tokens, ended) in zip(members, asked, results, strict=True):
            text = loaded.tokenizer.decode(tokens, skip_special_tokens=True)
            cut = _stop(loaded.tokenizer, tokens, request.sampling.stop)
            self.new_tokens += len(tokens)
            yield (
                index,
                Completion(
                    text=(text if cut is None else cut).strip(),
                    prompt_tokens=len(rows[index].tokens),
                    new_tokens=len(tokens),
                    finish="stop" if ended else "length",
                    revision=self.revision(request.model, request.adapter),
                ),
            )

    def _row_logits(self, network: Any, rows: list[Row], budget: int) -> dict[tuple[int, ...], torch.Tensor]:
        """Logits at the wanted positions of each row."""
        found: dict[tuple[int, ...], torch.Tensor] = {}
        for wave in waves(rows, [0] * len(rows), budget):
            encoded = encode(network, rows, wave)
            self._count(rows, wave)
            members = [index for group in wave for index in group.members]
            for at, index in enumerate(members):
                found[rows[index].tokens] = encoded.logits[at, -rows[index].keep :]
        return found

    def _count(self, rows: list[Row], wave: list[Group]) -> None:
        """Keep count of what was asked and what had to be encoded, padding left out."""
        for group in wave:
            self.prompt_tokens += sum(len(rows[index].tokens) for index in group.members)
            self.encoded_tokens += group.shared + sum(len(rows[i].tokens) - group.shared for i in group.members)

    def _fitting(
        self, loaded: _Loaded, rows: list[Row], extra: list[int], indices: list[int], answers: list[Any]
    ) -> list[int]:
        """Rows within the model's context; the others become failures."""
        fits = []
        for at, (row, more) in enumerate(zip(rows, extra, strict=True)):
            if len(row.tokens) + more <= loaded.limit:
                fits.append(at)
                continue
            message = f"prompt of {len(row.tokens)} tokens and {more} new ones exceed the model's {loaded.limit}"
            answers[indices[at]] = EngineFailure(kind="context", message=message)
        return fits

    def _load(self, name: str) -> _Loaded:
        """Load a model once.

        Raises:
            UserError: there is no such model, or it has no safetensors weights.
        """
        if name not in self._models:
            from transformers import AutoModelForCausalLM, AutoTokenizer

            path = self._resolve(name)
            check_weights(path)
            try:
                tokenizer = AutoTokenizer.from_pretrained(path, revision=self.hub_revision)
                model = AutoModelForCausalLM.from_pretrained(
                    path, dtype=self.dtype, use_safetensors=True, revision=self.hub_revision
                )
            except (OSError, ValueError) as error:
                first = str(error).strip().splitlines()[0]
                raise UserError(f"cannot load model {name!r} from {path}: {first}") from error
            model = model.to(self.device).eval().requires_grad_(False)
            limit = getattr(model.config, "max_position_embeddings", None) or 1 << 30
            # A sliding window counts padding, so such models take one row at a time.
            budget = self.batch_tokens if _attends_to_all(model.config) else 1
            self._models[name] = _Loaded(model, tokenizer, _end_tokens(model, tokenizer), limit, budget)
        return self._models[name]

    @contextlib.contextmanager
    def _adapted(self, loaded: _Loaded, model: str, adapter: str | None) -> Iterator[Any]:
        """The network with one adapter switched on, or with none."""
        if adapter is None:
            if not loaded.adapters:
                yield loaded.model
                return
            with loaded.model.disable_adapter():
                yield loaded.model
            return
        path = self._resolve(adapter)
        revision = self._fingerprint(path)
        if revision not in loaded.adapters:
            check_adapter(self._resolve(model), path)
            self._add_adapter(loaded, path, revision)
        loaded.model.set_adapter(loaded.adapters[revision])
        yield loaded.model

    def _add_adapter(self, loaded: _Loaded, adapter: str, revision: str) -> None:
        """Load a LoRA adapter beside those the model holds."""
        from peft import PeftModel

        name = f"a{revision}"
        try:
            if loaded.adapters:
                loaded.model.load_adapter(adapter, adapter_name=name, is_trainable=False)
            else:
                loaded.model = PeftModel.from_pretrained(loaded.model, adapter, adapter_name=name).eval()
        except (RuntimeError, ValueError, OSError) as error:
            first = str(error).strip().splitlines()[0]
            raise UserError(f"cannot load adapter {adapter}: {first}") from error
        loaded.model.to(self.device).requires_grad_(False)
        loaded.adapters[revision] = name


def _device(name: str | None) -> torch.device:
    """The device of a name, or the best there is.

    Raises:
        UserError: there is no such device.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"engine.device {name!r} can not be used ({first}); choose cpu, cuda or cuda:N") from error
    return device


def uniforms(request: Request) -> np.ndarray:
    """The request's own random numbers, one a token: the same whatever is batched beside it, on any machine.

    Returns:
        (max_new_tokens,) floats in [0, 1).
    """
    name = digest([[m.model_dump() for m in request.messages], request.sampling.model_dump(mode="json"), request.seed])
    stream = np.random.Generator(np.random.Philox(key=int(name, 16)))
    return stream.random(request.sampling.max_new_tokens)


def _by_weights(questions: Sequence[T]) -> dict[tuple[str, str | None], list[int]]:
    """Indices of requests by model and adapter, so that each is switched on once."""
    found: dict[tuple[str, str | None], list[int]] = defaultdict(list)
    for index, question in enumerate(questions):
        found[(question.model, question.adapter)].append(index)
    return found


def _attends_to_all(config: Any) -> bool:
    """Whether every layer attends to everything before it."""
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    return kinds == {"full_attention"} and getattr(text, "sliding_window", None) is None


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end an answer: those of the generation config and the tokenizer's end of sequence."""
    ends = model.generation_config.eos_token_id
    listed = ends if isinstance(ends, list) else [ends]
    return frozenset(token for token in [*listed, tokenizer.eos_token_id] if token is not None)


def _stop(tokenizer: Any, tokens: list[int], stops: tuple[str, ...]) -> str | None:
    """The text before the first stop text, or None where none stands in it."""
    if not stops:
        return None
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    found = [text.find(stop) for stop in stops if stop in text]
    return text[: min(found)] if found else None
