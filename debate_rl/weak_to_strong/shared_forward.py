"""Members of one frozen base predict together: what they have in common is computed once.

Linear probes share the whole pass: one forward gives every head its hidden state. LoRA adapters share the layers below
the first that any of them changes; from there on the rows stand in the batch once for each member, and peft applies to
each row its own adapter (`adapter_names`). Adapters in every layer share the weights in memory, not the arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np

from debate_rl.intervals import Floats
from debate_rl.trainers.common.rows import ClassifierRow, JudgeRow
from debate_rl.trainers.common.settings import Weights
from debate_rl.weak_to_strong.tasks.items import Sample

BATCH_TOKENS = 8192
HEADS = ("score.weight", "classifier.weight")
"""Where transformers keeps a linear head of two classes."""


def one_base(members: Sequence[Weights], readout: str) -> bool:
    """Whether members can predict together: adapters of one base, or linear probes."""
    if readout == "probe":
        return all(_head_of(one.model) is not None for one in members)
    return readout == "answers" and len({one.model for one in members}) == 1 and all(one.adapter for one in members)


def predict_together(
    samples: Sequence[Sample], members: Sequence[Weights], readout: str, max_length: int | None = None
) -> list[Floats]:
    """P(answer 0) of the same samples by each of several members, k times (n,).

    Args:
        samples: what all of them read.
        members: adapters of one base, or probes on it (`one_base`).
        readout: answers or probe.
        max_length: probes cut texts to it, as in training.

    Raises:
        UserError: a model can not be loaded, or a sample is longer than its context.
    """
    found = _probes(samples, members, max_length) if readout == "probe" else _adapters(samples, members)
    return [np.asarray(p, dtype=float) for p in found]


def _head_of(model: str) -> str | None:
    """Name of a model's linear head; None where its head is something else."""
    from debate_rl.engines.weights import header, weight_files

    names = {name for path in weight_files(model) for name in header(path)}
    found = [name for name in HEADS if name in names and name.replace("weight", "bias") not in names]
    return found[0] if found else None


def _probes(samples: Sequence[Sample], members: Sequence[Weights], max_length: int | None) -> Floats:
    """By linear probes, (k, n): the body once, then every head."""
    import torch

    from debate_rl.trainers.classifier import ClassifierCollator, cut_texts, encode_texts, free_pad_id
    from debate_rl.trainers.common.load import load_model, load_tokenizer

    first = members[0].model
    name = _head_of(first) or HEADS[0]
    tokenizer, device = load_tokenizer(first), _device()
    network = load_model(first, "classifier", trainable=False).to(device).eval()
    heads = torch.cat([_tensor(one.model, name) for one in members])
    head = torch.nn.Linear(heads.shape[1], len(heads), bias=False)
    head.weight = torch.nn.Parameter(heads, requires_grad=False)
    setattr(network, name.split(".")[0], head.to(device, next(network.parameters()).dtype))
    network.config.num_labels = network.num_labels = len(heads)
    rows = [ClassifierRow(id=str(at), prompt=sample.prompt) for at, sample in enumerate(samples)]
    encoded = cut_texts(tokenizer, encode_texts(tokenizer, rows), max_length)
    network.config.pad_token_id = free_pad_id(tokenizer, encoded)
    batch = ClassifierCollator(network.config.pad_token_id, BATCH_TOKENS)(encoded)
    with torch.inference_mode():
        logits = [network(**_on(chunk, device)).logits.float() for chunk in batch["chunks"]]
    pairs = torch.cat(logits)[batch["order"]].unflatten(-1, (len(members), 2))
    return np.asarray(torch.softmax(pairs, -1)[..., 1].T.cpu().numpy(), dtype=float)


def _tensor(model: str, name: str) -> Any:
    """A tensor of a model's weights."""
    from safetensors import safe_open

    from debate_rl.engines.weights import header, weight_files

    path = next(path for path in weight_files(model) if name in header(path))
    with safe_open(path, framework="pt") as file:
        return file.get_tensor(name)


def _adapters(samples: Sequence[Sample], members: Sequence[Weights]) -> Floats:
    """By LoRA adapters of one base, (k, n)."""
    import torch

    from debate_rl.trainers.common.load import load_tokenizer
    from debate_rl.trainers.judge import JudgeCollator, encode_judge_rows, wanted_logits

    base, count = members[0].model, len(members)
    tokenizer, device = load_tokenizer(base), _device()
    network = _network(base, members).to(device).eval()
    encoded = encode_judge_rows(
        tokenizer, [JudgeRow(prompt=one.prompt, candidates=one.candidates, target=0.5) for one in samples]
    )
    batch = JudgeCollator(tokenizer.pad_token_id, BATCH_TOKENS // count)(encoded)
    trunk, found = _trunk(network), []
    with torch.inference_mode():
        for chunk in batch["chunks"]:
            size = len(chunk["wanted"])
            rows = _on(chunk, device)
            spread = _Spread(count, size)
            read = {"wanted"} if trunk else set(rows)
            rows = {key: spread(value) if key in read else value for key, value in rows.items()}
            names = [f"m{member}" for member in range(count) for _ in range(size)]
            with spread.inside(*trunk) if trunk else nullcontext():
                logits = wanted_logits(partial(network, adapter_names=names), rows, batch["long"])
            found.append(logits.float().cpu().unflatten(0, (count, size)))
    each = torch.cat(found, dim=1)[:, batch["order"]]
    pairs = each.unflatten(1, (-1, 2)) if batch["long"] else each
    return np.asarray(torch.softmax(pairs, -1)[..., 0].numpy(), dtype=float)


def _network(base: str, members: Sequence[Weights]) -> Any:
    """The base with every member's adapter beside it."""
    from debate_rl.engines.load import load_adapter
    from debate_rl.engines.weights import check_adapter
    from debate_rl.trainers.common.load import load_model

    model = load_model(base, trainable=False)
    for number, one in enumerate(members):
        check_adapter(base, str(one.adapter))
        model = load_adapter(model, str(one.adapter), f"m{number}")
    return model.requires_grad_(False)


class _Spread:
    """Repeats the rows of a batch once for each member, all rows of the first member first."""

    def __init__(self, count: int, size: int) -> None:
        self.count = count
        self.size = size

    def __call__(self, value: Any) -> Any:
        """A tensor or a tuple of them, repeated where its first axis is the batch."""
        if isinstance(value, tuple):
            return tuple(map(self, value))
        if not hasattr(value, "repeat") or value.ndim < 2 or value.shape[0] != self.size:
            return value
        return value.repeat(self.count, *[1] * (value.ndim - 1))

    @contextmanager
    def inside(self, layers: Sequence[Any], first: int) -> Iterator[None]:
        """Repeat at a layer: those below see each row once. Masks and positions reach each layer from the model."""

        def at(place: int) -> Any:
            def hook(_: Any, args: Any, given: dict[str, Any]) -> Any:
                kept = {"hidden_states"} if place > first else set()
                given = {key: one if key in kept else self(one) for key, one in given.items()}
                return (self(args) if place == first else args), given

            return layers[place].register_forward_pre_hook(hook, with_kwargs=True)

        hooks = [at(place) for place in range(first, len(layers))]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def _trunk(network: Any) -> tuple[Sequence[Any], int] | None:
    """The layers and the first that an adapter changes; None where adapters are outside of them, or in all."""
    from torch.nn import ModuleList

    base = network.get_base_model()
    depth = base.config.get_text_config().num_hidden_layers
    stacks = [module for module in base.modules() if isinstance(module, ModuleList) and len(module) == depth]
    adapted = {name for name, _ in base.named_parameters() if "lora_" in name}
    if len(stacks) != 1:
        return None
    inside = [sum("lora_" in name for name, _ in layer.named_parameters()) for layer in stacks[0]]
    if sum(inside) != len(adapted):
        return None
    first = next(place for place, number in enumerate(inside) if number)
    return (list(stacks[0]), first) if first else None


def _device() -> Any:
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _on(chunk: dict[str, Any], device: Any) -> dict[str, Any]:
    return {name: tensor.to(device) for name, tensor in chunk.items()}
