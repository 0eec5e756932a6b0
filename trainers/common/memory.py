"""Memory and time that a training needs, estimated before anything is loaded, and what to change where it does not fit.

Per process, in bytes, for N weights of the base, A of the adapter, T tokens of a micro-batch, L layers:

    weights      N x 2 (bfloat16), N x 4 (float32, or every weight trained), or 0.516 a weight of the layers in NF4:
                 4 bits, 8 per 64 weights and 32 per 16,384 for double quantization (Dettmers et al. 2023, section 3)
    adapter      A x 4
    gradients    4 x what is trained
    optimizer    8 x what is trained (Adam's two moments), 2 x with an 8-bit optimizer
    casts        2 x N where every weight is trained in float32 and computed with in bfloat16
    reference    DPO and GRPO: a frozen copy of adapter or model, unless it is the base itself or computed before
    activations  checkpointed: T x hidden x 2 x L, and one layer's activations; else those of L layers
    logits       8 x vocabulary x tokens in the loss, at most 1,024 at a time (TRL's head scores them in tiles)

ZeRO-2 divides gradients and optimizer by the processes, ZeRO-3 and FSDP weights, casts and reference as well, but for
one layer that is gathered. Weights in 4 bits stay whole. OVERHEAD is added and MARGIN of the card is left free: (ours).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from debate_rl.errors import UserError, existing, nearest
from debate_rl.records import Record, read_yaml
from debate_rl.trainers.common.model_shapes import Shape
from debate_rl.trainers.common.settings import Kind

GIB = 1 << 30
OVERHEAD = 1.5 * GIB
"""Context of the device, kernels' workspaces and buffers of the other processes."""
MARGIN = 0.05
"""Of a card, left free: memory is handed out in pieces that do not quite fit together."""
UTILISATION = 0.35
"""Share of the card's arithmetic that a training reaches; 4-bit weights take a quarter more time: (ours)."""
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
_TILE = 1024

Sharding = Literal["none", "zero2", "zero3", "fsdp"]
Reference = Literal["base", "adapter", "model", "none"]


class Card(Record):
    """A graphics card: memory that a program can use, peak dense bfloat16 arithmetic in TFLOP/s, and GB/s read."""

    name: str
    gib: float
    tflops: float | None = None
    gbs: float | None = None


CARDS = {
    name: Card(name=name, gib=gib, tflops=tflops, gbs=gbs)
    for name, gib, tflops, gbs in (
        ("rtx3090-24gb", 23.6, 71, 936), ("rtx4090-24gb", 23.6, 165, 1008), ("l4-24gb", 22.0, 121, 300),
        ("a10-24gb", 22.0, 125, 600), ("l40s-48gb", 44.4, 362, 864), ("a100-40gb", 39.4, 312, 1555),
        ("a100-80gb", 79.2, 312, 2039), ("h100-80gb", 79.1, 989, 3350), ("h200-141gb", 139.8, 989, 4800),
        ("b200-180gb", 178.0, 2250, 8000),
    )
}  # fmt: skip
"""By the makers' data sheets; GiB as the driver reports them, rounded down."""


def card_of(named: str | float) -> Card:
    """The card of a name, or one of so many GiB.

    Raises:
        UserError: there is no card of that name here.
    """
    if isinstance(named, int | float):
        return Card(name=f"{named:g} GiB", gib=float(named))
    if named.lower() not in CARDS:
        raise UserError(f"hardware.card {named!r}: {nearest(named.lower(), CARDS)}; or give its GiB as a number")
    return CARDS[named.lower()]


class Training(Record):
    """What the memory of a training depends on.

    Example (DPO of a 4-bit Llama-3-8B from an SFT adapter, prompts of 8,000 tokens, speeches of 300, one card):
        Training(kind="dpo", shape=shape_of("Meta-Llama-3-8B"), prompt=8000, speech=300, lora=64, quantize="nf4",
                 reference="adapter", share_prompt=True)
    """

    kind: Kind
    shape: Shape
    prompt: int
    """Tokens of the longest prompt."""
    speech: int
    """Tokens of the longest completion."""
    batch: int = 1
    """Rows of a micro-batch (pairs for DPO)."""
    lora: int | None = None
    """Rank; None trains every weight."""
    adapt_experts: bool = True
    """Whether the adapter of a mixture is on its experts as well, which those in 4 bits never have."""
    quantize: Literal["nf4"] | None = None
    half: bool = True
    """Whether it computes in bfloat16."""
    checkpointing: bool = True
    reference: Reference = "base"
    """What DPO's reference keeps in memory beside the policy; `base` is the policy with its adapter off."""
    share_prompt: bool = False
    small_optimizer: bool = False
    """Whether the optimizer keeps its moments in 8 bits."""
    sharding: Sharding = "none"
    processes: int = Field(default=1, ge=1)

    @property
    def row(self) -> int:
        """Tokens that a row encodes: of a DPO pair both speeches, and their prompt once or twice."""
        if self.kind != "dpo":
            return self.prompt + self.speech
        return self.prompt + 2 * self.speech + 1 if self.share_prompt else 2 * (self.prompt + self.speech)


class Memory(Record):
    """Bytes on each card, by what they hold."""

    weights: float
    adapter: float
    gradients: float
    optimizer: float
    reference: float
    activations: float
    logits: float
    overhead: float = OVERHEAD

    @property
    def total(self) -> float:
        """Bytes in all."""
        return sum(self.model_dump().values())

    def __str__(self) -> str:
        """The parts in GiB, those that are there."""
        parts = {name: value / GIB for name, value in self.model_dump().items()}
        return ", ".join(f"{name} {value:.1f}" for name, value in parts.items() if value >= 0.05)


def memory(t: Training) -> Memory:
    """Estimate the memory of a training on each card (see the module's text)."""
    shape, unit = t.shape, 2 if t.half else 4
    adapter = 0 if t.lora is None else shape.lora(t.lora, t.adapt_experts and t.quantize is None)
    trained = shape.parameters if t.lora is None else adapter
    base = _base_bytes(t)
    # One layer is gathered where weights are in shards.
    gathered = shape.layer * unit
    whole = t.sharding not in ("zero3", "fsdp") or t.processes == 1 or t.quantize is not None
    divided: Callable[[float], float] = (lambda size: size) if whole else lambda size: size / t.processes + gathered
    moments = t.processes if t.sharding != "none" else 1
    reference = {"base": 0.0, "none": 0.0, "adapter": 4.0 * adapter, "model": divided(4.0 * shape.parameters)}
    return Memory(
        weights=divided(base),
        adapter=4.0 * adapter,
        gradients=4.0 * trained / moments,
        optimizer=(2.0 if t.small_optimizer else 8.0) * trained / moments,
        reference=reference[t.reference] if t.kind in ("dpo", "grpo") else 0.0,
        activations=_activations(t),
        logits=8.0 * shape.vocabulary * min(_TILE, t.batch * t.speech * (2 if t.kind == "dpo" else 1)),
    )


def _base_bytes(t: Training) -> float:
    """Bytes of the base's weights on a machine that holds them whole."""
    shape, unit = t.shape, 2 if t.half else 4
    if t.quantize is not None:
        matrices = shape.layers * shape.layer
        return NF4 * matrices + unit * (shape.parameters - matrices)
    if t.lora is not None:
        return float(unit * shape.parameters)
    return (6.0 if t.half else 4.0) * shape.parameters


def layer_bytes(t: Training) -> float:
    """What one layer keeps of a token for the backward pass, in bytes.

    Two norms keep their input in float32, what comes out of them normalised and scaled; attention keeps its queries,
    keys and values, and its output; each feed-forward network its gate before and after the activation, its other half
    and their product. An adapter adds rank numbers a matrix and, where it is kept in float32 beside bfloat16, what
    each matrix reads once more, cast there and back.
    """
    shape, unit = t.shape, 2 if t.half else 4
    queries, keys = shape.widths
    # Keys and values are repeated for their queries where the kernel does not do it.
    width = 2 * queries + 2 * (keys if shape.heads == shape.kv_heads else queries)
    kept = 4 * shape.hidden + width + 4 * shape.intermediate * shape.active
    lora = 0 if t.lora is None else t.lora * len(shape.adapted) + t.half * sum(first for first, _ in shape.adapted)
    return 2 * 4 * shape.hidden + unit * (kept + lora)


def _activations(t: Training) -> float:
    """Bytes kept for the backward pass of a micro-batch, masks and unpacked experts included."""
    shape, unit = t.shape, 2 if t.half else 4
    tokens, layer = t.batch * t.row, layer_bytes(t)
    # 4-bit experts are unpacked whole, and kept where a layer is not run again.
    unpacked = unit * shape.layer if t.quantize is not None and shape.experts > 1 else 0
    rows = t.batch * (2 if t.kind == "dpo" and not t.share_prompt else 1)
    # Padded rows need a mask of width x width, as truth values and as numbers to add.
    mask = 0 if rows == 1 else rows * (t.prompt + t.speech) ** 2 * (1 + unit)
    if t.checkpointing:
        return tokens * (unit * shape.hidden * shape.layers + layer) + mask + unpacked
    return shape.layers * (tokens * layer + unpacked) + mask


def hours(t: Training, tokens: float, card: Card) -> float | None:
    """Hours for so many tokens on all cards, estimated; None where the card's arithmetic is not known.

    A weight costs a token 2 operations forward, 2 for the gradient of what it reads, 2 for its own where it is trained
    (Kaplan et al. 2020, section 2.1), 2 more where the layer is run again; causal attention over W tokens 2 W x width
    forward and 2.5 times as much backward.
    """
    if card.tflops is None:
        return None
    passes = (6 if t.lora is None else 4) + (2 if t.checkpointing else 0)
    width = t.prompt + t.speech
    attention = 2 * width * t.shape.widths[0] * t.shape.layers * (4.5 if t.checkpointing else 3.5)
    slower = 1.25 if t.quantize else 1.0
    operations = tokens * (passes * t.shape.used + attention) * slower
    return operations / (card.tflops * 1e12 * UTILISATION * t.processes) / 3600


def shortfall(t: Training, card: Card) -> float:
    """GiB by which a training is too large for a card; negative where it fits."""
    return memory(t).total / GIB - card.gib * (1 - MARGIN)


_CHANGES: tuple[tuple[str, Callable[[Training], dict[str, Any]]], ...] = (
    ("train.per_device_train_batch_size 1 with gradient_accumulation_steps", lambda t: {"batch": 1}),
    ("train.gradient_checkpointing true", lambda t: {"checkpointing": True}),
    ("share_prompt true", lambda t: {"share_prompt": t.kind == "dpo"}),
    ("train.precompute_ref_log_probs true", lambda t: {"reference": "base" if t.reference == "base" else "none"}),
    ("lora.r 64 in place of training every weight", lambda t: {"lora": t.lora or 64}),
    ("quantize nf4", lambda t: {"quantize": "nf4"}),
    ("launch configs/accelerate/zero3.yaml on 8 cards without quantize",
     lambda t: {"sharding": "zero3", "processes": 8, "quantize": None}),
)  # fmt: skip


def refuse(t: Training, card: Card, name: str) -> None:
    """Make sure that a training fits.

    Raises:
        UserError: the card is too small, or a row is longer than what the model reads; says by how much and the first
            changes, tried in order, with which it would fit.
    """
    longest = t.prompt + t.speech
    if t.shape.positions is not None and longest > t.shape.positions:
        raise UserError(
            f"{name}: rows of about {longest:,} tokens are longer than the model's {t.shape.positions:,}; "
            "set train.max_length to leave them out, or take a model with a longer context"
        )
    over = shortfall(t, card)
    if over <= 0:
        return
    where = "1 card" if t.processes == 1 else f"each of {t.processes} cards"
    raise UserError(
        f"{name}: needs about {memory(t).total / GIB:.0f} GiB on {where} ({memory(t)}), {over:.0f} GiB more than "
        f"{card.name} has to give; {_advice(t, card)}"
    )


def _advice(t: Training, card: Card) -> str:
    """The changes after which it fits, or that none of them is enough."""
    single = [(name, t.model_copy(update=change(t))) for name, change in _CHANGES]
    for name, changed in single:
        if changed != t and shortfall(changed, card) <= 0:
            return f"set {name}"
    wanted: list[str] = []
    for name, change in _CHANGES:
        changed = t.model_copy(update=change(t))
        if changed != t and memory(changed).total < memory(t).total:
            t, wanted = changed, [*wanted, name]
            if shortfall(t, card) <= 0:
                return f"set {', '.join(wanted)}"
    return "take a larger card, a smaller model or shorter rows"


def check_spread(launch: str, tree: dict[str, Any], processes: int) -> None:
    """Make sure that an accelerate config starts as many processes as are wanted.

    Raises:
        UserError: it starts one whatever it is told (distributed_type 'NO'), and more are wanted.
    """
    if processes > 1 and tree.get("distributed_type") in ("NO", False):  # a bare NO is YAML's false
        raise UserError(
            f"{launch} trains in one process, and {processes} are asked for; launch with multi_gpu.yaml, zero3.yaml "
            "or fsdp2.yaml of configs/accelerate, or set hardware.cards 1"
        )


def sharding_of(launch: str | None) -> tuple[Sharding, int]:
    """How an accelerate config spreads a training, and over how many processes.

    Raises:
        UserError: the file or the DeepSpeed file it names is missing, or it is for one process and names more.
    """
    if launch is None:
        return "none", 1
    tree = read_yaml(launch, "accelerate config")
    processes = int(tree.get("num_processes") or 1)
    check_spread(launch, tree, processes)
    if tree.get("distributed_type") == "FSDP":
        return "fsdp", processes
    deepspeed = tree.get("deepspeed_config") or {}
    stage = deepspeed.get("zero_stage")
    if "deepspeed_config_file" in deepspeed:
        file = existing(Path(deepspeed["deepspeed_config_file"]), "DeepSpeed config")
        stage = json.loads(file.read_text(encoding="utf-8")).get("zero_optimization", {}).get("stage")
    named: dict[Any, Sharding] = {2: "zero2", 3: "zero3"}
    return named.get(stage, "none"), processes
