"""Predictions of several members of one frozen base in shared forward passes.

Linear probes share the whole pass: one forward gives every head its hidden state. LoRA adapters share the layers below
the first one that any of them changes. From there on the batch holds each row once per member, and peft applies to
each row its member's adapter (`adapter_names`). Adapters in every layer share only the weights in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np

from debate_rl.intervals import Floats
from debate_rl.trainers.common.rows import ClassifierRow, JudgeRow
from debate_rl.trainers.common.settings import Dtype, Weights
from debate_rl.weak_to_strong.tasks.items import Sample

BATCH_TOKENS = 8192
HEADS = ("score.weight", "classifier.weight")
"""Names that transformers gives the weights of a linear head."""


def one_base(members: Sequence[Weights], readout: str) -> bool:
    """Whether members can predict together: adapters of one base, or linear probes."""
    if readout == "probe":
        return all(_head_of(member.model) is not None for member in members)
    bases = {member.model for member in members}
    return readout == "answers" and len(bases) == 1 and all(member.adapter for member in members)


def predict_together(
    samples: Sequence[Sample],
    members: Sequence[Weights],
    readout: str,
    max_length: int | None = None,
    dtype: Dtype = "float32",
) -> list[Floats]:
    """Predict P(answer 0) of the same samples by each of several members, k times (n,).

    Args:
        samples: texts that all members read.
        members: adapters of one base, or probes on it (`one_base`).
        readout: answers or probe.
        max_length: length to which probes cut texts, as in training.
        dtype: number format of a language model that is read.

    Raises:
        UserError: a model can not be loaded, or a sample is longer than its context.
    """
    if readout == "probe":
        p = _probes(samples, members, max_length)
    else:
        p = _adapters(samples, members, dtype)
    return [np.asarray(row, dtype=float) for row in p]


def _head_of(model: str) -> str | None:
    """Name of a model's linear head; None where its head is something else."""
    from debate_rl.engines.weights import header, weight_files

    names: set[str] = set()
    for path in weight_files(model):
        names |= set(header(path))
    for name in HEADS:
        # Heads with a bias can not be stacked below, where only weights are.
        if name in names and name.replace("weight", "bias") not in names:
            return name
    return None


def _probes(samples: Sequence[Sample], members: Sequence[Weights], max_length: int | None) -> Floats:
    """P(answer 0) by linear probes, (k, n): one pass of the body, then every head."""
    import torch

    from debate_rl.trainers.classifier import ClassifierCollator, cut_texts, encode_texts, free_pad_id
    from debate_rl.trainers.common.heads import Float32Linear
    from debate_rl.trainers.common.load import load_model, load_tokenizer

    first = members[0].model
    head_name = _head_of(first) or HEADS[0]
    device = _device()
    tokenizer = load_tokenizer(first)
    network = load_model(first, "classifier", trainable=False).to(device).eval()
    # The heads of all members as one head of 2 k classes, in place of the first member's own.
    weights = torch.cat([_read_tensor(member.model, head_name) for member in members])
    head = Float32Linear(weights.shape[1], len(weights), bias=False)
    head.weight = torch.nn.Parameter(weights, requires_grad=False)
    setattr(network, head_name.split(".")[0], head.to(device))
    network.config.num_labels = network.num_labels = len(weights)
    rows = [ClassifierRow(id=str(number), prompt=sample.prompt) for number, sample in enumerate(samples)]
    encoded = cut_texts(tokenizer, encode_texts(tokenizer, rows), max_length)
    network.config.pad_token_id = free_pad_id(tokenizer, encoded)
    batch = ClassifierCollator(network.config.pad_token_id, BATCH_TOKENS)(encoded)
    with torch.inference_mode():
        logits = [network(**_to_device(chunk, device)).logits.float() for chunk in batch["chunks"]]
    # The collator packs rows by length; `order` brings them back. Class 1 of a classifier is answer 0.
    pairs = torch.cat(logits)[batch["order"]].unflatten(-1, (len(members), 2))
    return np.asarray(torch.softmax(pairs, -1)[..., 1].T.cpu().numpy(), dtype=float)


def _read_tensor(model: str, name: str) -> Any:
    """Read one tensor of a model's weights, without the others."""
    from safetensors import safe_open

    from debate_rl.engines.weights import header, weight_files

    path = next(path for path in weight_files(model) if name in header(path))
    with safe_open(path, framework="pt") as file:
        return file.get_tensor(name)


def _adapters(samples: Sequence[Sample], members: Sequence[Weights], dtype: Dtype) -> Floats:
    """P(answer 0) by LoRA adapters of one base, (k, n)."""
    import torch

    from debate_rl.trainers.common.load import load_tokenizer
    from debate_rl.trainers.judge import JudgeCollator, encode_judge_rows, wanted_logits

    base = members[0].model
    count = len(members)
    device = _device()
    tokenizer = load_tokenizer(base)
    network = _load_with_adapters(base, members, dtype).to(device).eval()
    rows = [JudgeRow(prompt=sample.prompt, candidates=sample.candidates, target=0.5) for sample in samples]
    encoded = encode_judge_rows(tokenizer, rows)
    # Each row stands in the batch once per member, so fewer rows fit.
    batch = JudgeCollator(tokenizer.pad_token_id, BATCH_TOKENS // count)(encoded)
    trunk = _trunk(network)
    chunks = []
    with torch.inference_mode():
        for chunk in batch["chunks"]:
            size = len(chunk["wanted"])
            repeat = _RepeatRows(count, size)
            inputs = _to_device(chunk, device)
            # With a trunk the rows are repeated at its end, and only the positions of the answers are here.
            repeated = {"wanted"} if trunk else set(inputs)
            inputs = {key: repeat(value) if key in repeated else value for key, value in inputs.items()}
            adapter_names = []
            for member in range(count):
                adapter_names += [f"m{member}"] * size
            forward = partial(network, adapter_names=adapter_names)
            with repeat.inside(*trunk) if trunk else nullcontext():
                logits = wanted_logits(forward, inputs, batch["long"])
            chunks.append(logits.float().cpu().unflatten(0, (count, size)))
    logits = torch.cat(chunks, dim=1)[:, batch["order"]]
    # Long answers give one logit a row, in rows that alternate between both answers.
    pairs = logits.unflatten(1, (-1, 2)) if batch["long"] else logits
    return np.asarray(torch.softmax(pairs, -1)[..., 0].numpy(), dtype=float)


def _load_with_adapters(base: str, members: Sequence[Weights], dtype: Dtype) -> Any:
    """The base with all members' adapters, named m0, m1, ..."""
    from debate_rl.engines.load import load_adapter
    from debate_rl.engines.weights import check_adapter
    from debate_rl.trainers.common.load import load_model

    model = load_model(base, trainable=False, dtype=dtype)
    for number, member in enumerate(members):
        check_adapter(base, str(member.adapter))
        model = load_adapter(model, str(member.adapter), f"m{number}")
    return model.requires_grad_(False)


class _RepeatRows:
    """Repeats the rows of a batch once for each member, all rows of the first member first."""

    def __init__(self, count: int, size: int) -> None:
        self.count = count
        self.size = size

    def __call__(self, value: Any) -> Any:
        """Repeat a tensor, or a tuple of tensors, whose first axis is the batch; return any other value unchanged."""
        if isinstance(value, tuple):
            return tuple(map(self, value))
        if not hasattr(value, "repeat") or value.ndim < 2 or value.shape[0] != self.size:
            return value
        return value.repeat(self.count, *[1] * (value.ndim - 1))

    @contextmanager
    def inside(self, layers: Sequence[Any], first: int) -> Iterator[None]:
        """Repeat rows from layer `first` on, so that the layers below see each row once."""

        def repeat_at(number: int) -> Any:
            def hook(_: Any, args: Any, kwargs: dict[str, Any]) -> Any:
                # Hidden states flow from layer to layer, so they are repeated once, at the first layer. Masks and
                # positions come from the model to each layer anew, so every layer repeats them.
                if number == first:
                    args = self(args)
                repeated = {}
                for key, value in kwargs.items():
                    flows = key == "hidden_states" and number > first
                    repeated[key] = value if flows else self(value)
                return args, repeated

            return layers[number].register_forward_pre_hook(hook, with_kwargs=True)

        hooks = [repeat_at(number) for number in range(first, len(layers))]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def _trunk(network: Any) -> tuple[Sequence[Any], int] | None:
    """The layers and the index of the first adapted one; None where adapters are outside the layers, or in all."""
    from torch.nn import ModuleList

    base = network.get_base_model()
    depth = base.config.get_text_config().num_hidden_layers
    stacks = [module for module in base.modules() if isinstance(module, ModuleList) and len(module) == depth]
    if len(stacks) != 1:
        return None
    layers = list(stacks[0])
    by_layer = [_count_adapted(layer) for layer in layers]
    if sum(by_layer) != _count_adapted(base):
        return None
    adapted_layers = [number for number, count in enumerate(by_layer) if count]
    first = adapted_layers[0]
    # With an adapter in the first layer there is no trunk that members could share.
    return None if first == 0 else (layers, first)


def _count_adapted(module: Any) -> int:
    """Number of a module's LoRA parameters."""
    return sum("lora_" in name for name, _ in module.named_parameters())


def _device() -> Any:
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _to_device(chunk: dict[str, Any], device: Any) -> dict[str, Any]:
    return {name: tensor.to(device) for name, tensor in chunk.items()}
