"""Estimate a training's memory and time before anything is loaded, and say what to change where it does not fit.

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

On a CPU the machine's memory takes the place of the card's. Weights stay float32 there, autocast to bfloat16 keeps its
copies of frozen weights for the backward pass, and OVERHEAD is PROCESS. `settled` chooses what a training on a CPU does
to keep its activations within ACTIVATIONS: parts of a batch first, then checkpointing.

ZeRO-2 divides gradients and optimizer by the processes, ZeRO-3 and FSDP weights, casts and reference as well, but for
one layer that is gathered. Weights in 4 bits stay whole. OVERHEAD is added and MARGIN of the card is left free (ours).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from debate_rl.engines.number_formats import AMX, cpu_has
from debate_rl.errors import UserError, existing, nearest
from debate_rl.records import Record, read_yaml
from debate_rl.trainers.common.model_shapes import Shape
from debate_rl.trainers.common.settings import Kind

GIB = 1 << 30
OVERHEAD = 1.5 * GIB
"""The device's context, the kernels' workspaces and communication buffers."""
MARGIN = 0.05
"""Share of a card left free: the allocator hands memory out in pieces that do not quite fit together."""
UTILISATION = 0.35
"""Share of the card's arithmetic that a training reaches; 4-bit weights take a quarter more time (ours)."""
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a 4-bit weight with its share of the scales."""
PROCESS = 1.25 * GIB
"""A process on a CPU: torch, TRL and what they import, and what the allocator keeps between steps (ours, measured)."""
ACTIVATIONS = 1.5 * GIB
"""Most bytes of activations that a training on a CPU keeps, where a single row does not take more."""
PART = 1024
"""Most tokens of a part of a batch in half precision, where a single row has not more. Larger parts are no faster on a
CPU, and padded rows need a mask, with which attention computes what causal attention leaves out."""
SMALL = 50_000_000
"""Weights below which a model always trains in float32 on a CPU."""
_GROUP = Path("/sys/fs/cgroup")
"""Where Linux says what a container may use (control groups, version 2)."""
_TILE = 1024
"""Tokens that TRL's head scores at a time."""

Sharding = Literal["none", "zero2", "zero3", "fsdp"]
Reference = Literal["base", "adapter", "model", "none"]


class Card(Record):
    """A graphics card."""

    name: str
    gib: float
    """Memory that a program can use, in GiB."""
    tflops: float | None = None
    """Peak of dense bfloat16 arithmetic, in TFLOP/s."""
    gbs: float | None = None
    """Memory bandwidth, in GB/s."""


_CARDS = (
    Card(name="rtx3090-24gb", gib=23.6, tflops=71, gbs=936),
    Card(name="rtx4090-24gb", gib=23.6, tflops=165, gbs=1008),
    Card(name="l4-24gb", gib=22.0, tflops=121, gbs=300),
    Card(name="a10-24gb", gib=22.0, tflops=125, gbs=600),
    Card(name="l40s-48gb", gib=44.4, tflops=362, gbs=864),
    Card(name="a100-40gb", gib=39.4, tflops=312, gbs=1555),
    Card(name="a100-80gb", gib=79.2, tflops=312, gbs=2039),
    Card(name="h100-80gb", gib=79.1, tflops=989, gbs=3350),
    Card(name="h200-141gb", gib=139.8, tflops=989, gbs=4800),
    Card(name="b200-180gb", gib=178.0, tflops=2250, gbs=8000),
)
CARDS = {card.name: card for card in _CARDS}
"""Figures of the makers' data sheets; GiB as the driver reports them, rounded down."""


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
    """Whether a mixture's adapter is on its experts as well; experts in 4 bits never have one."""
    quantize: Literal["nf4"] | None = None
    half: bool = True
    """Whether it computes in bfloat16."""
    checkpointing: bool = True
    reference: Reference = "base"
    """What DPO's reference keeps in memory beside the policy; `base` is the policy with its adapter off."""
    share_prompt: bool = False
    small_optimizer: bool = False
    """Whether the optimizer keeps its moments in 8 bits."""
    part: int | None = None
    """Most tokens of a part of a micro-batch that is computed at once; None computes it whole."""
    on_cpu: bool = False
    sharding: Sharding = "none"
    processes: int = Field(default=1, ge=1)

    @property
    def row(self) -> int:
        """Tokens that a row encodes; a DPO pair has two speeches, and their prompt once or twice."""
        if self.kind != "dpo":
            return self.prompt + self.speech
        if self.share_prompt:
            # The prompt's last token stands twice, once before each speech (see `pairs`).
            return self.prompt + 2 * self.speech + 1
        return 2 * (self.prompt + self.speech)

    @property
    def number(self) -> int:
        """Bytes of a number in the type that the training computes in."""
        return 2 if self.half else 4

    @property
    def stream(self) -> int:
        """Bytes of a number between layers; under autocast on a CPU these stay float32, as the embedding is."""
        return 4 if self.on_cpu else self.number


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
        """The parts in GiB that do not round to zero."""
        parts = {name: value / GIB for name, value in self.model_dump().items()}
        return ", ".join(f"{name} {value:.1f}" for name, value in parts.items() if value >= 0.05)


def settled(training: Training, checkpointing: bool | None = None, splits: bool = True) -> Training:
    """Choose parts of a batch, and checkpointing where one row alone keeps too much; only on a CPU.

    The choice follows from the training alone, not from the memory that happens to be free, so that a training gives
    the same numbers wherever it goes on.

    Args:
        training: what is known of it.
        checkpointing: what the user has set; None chooses.
        splits: whether its loss can be computed in parts of a batch.
    """
    if not training.on_cpu or training.kind == "grpo":
        return training
    kept = training.shape.layers * layer_bytes(training)
    if checkpointing is None:
        checkpointing = kept * training.row > ACTIVATIONS
    if checkpointing:
        kept = layer_bytes(training) + training.stream * training.shape.hidden * training.shape.layers
    part = max(int(ACTIVATIONS / kept), 1)
    if training.half:
        part = min(part, PART)
    return training.model_copy(update={"checkpointing": checkpointing, "part": part if splits else None})


def memory(training: Training) -> Memory:
    """Estimate the memory of a training on each card (see the module's docstring)."""
    shape = training.shape
    adapter = 0
    if training.lora is not None:
        adapter = shape.lora(training.lora, training.adapt_experts and training.quantize is None)
    trained = shape.parameters if training.lora is None else adapter
    # Every stage of ZeRO, and FSDP, divides gradients and optimizer; only the last two divide weights.
    optimizer_shards = training.processes if training.sharding != "none" else 1
    reference = 0.0
    if training.kind in ("dpo", "grpo"):
        if training.reference == "adapter":
            reference = 4.0 * adapter
        elif training.reference == "model":
            reference = _per_process(training, 4.0 * shape.parameters)
    # Each token in the loss has float32 logits and their gradient.
    scored = training.batch * training.speech * (2 if training.kind == "dpo" else 1)
    return Memory(
        weights=_per_process(training, _base_bytes(training)),
        adapter=4.0 * adapter,
        gradients=4.0 * trained / optimizer_shards,
        optimizer=(2.0 if training.small_optimizer else 8.0) * trained / optimizer_shards,
        reference=reference,
        activations=_activations(training),
        logits=8.0 * shape.vocabulary * min(_TILE, scored),
        overhead=PROCESS if training.on_cpu else OVERHEAD,
    )


def _per_process(training: Training, size: float) -> float:
    """Bytes of a model's weights on one card: all of them, or a shard and the one layer that is gathered to compute."""
    sharded = training.sharding in ("zero3", "fsdp") and training.processes > 1
    if not sharded or training.quantize is not None:
        return size
    return size / training.processes + training.shape.layer * training.number


def _base_bytes(training: Training) -> float:
    """Bytes of the base's weights on a machine that holds them whole."""
    shape = training.shape
    if training.quantize is not None:
        # Embedding, head and norms are not quantized.
        matrices = shape.layers * shape.layer
        return NF4 * matrices + training.number * (shape.parameters - matrices)
    if training.lora is not None and not training.on_cpu:
        return float(training.number * shape.parameters)
    if training.lora is not None:
        # Autocast casts a frozen weight each time, and the backward pass reads the copy.
        copies = 2.0 * shape.layers * shape.layer if training.half and not training.checkpointing else 0.0
        return 4.0 * shape.parameters + copies
    # Weights that are trained are float32; in half precision autocast keeps a bfloat16 copy beside them.
    return (6.0 if training.half else 4.0) * shape.parameters


def layer_bytes(training: Training) -> float:
    """Bytes that one layer keeps of a token for the backward pass.

    Each of two norms keeps its input in float32, its normalised output and its scaled output. Attention keeps queries,
    keys, values and its output. Each feed-forward network keeps its gate before and after the activation, its other
    half and their product. An adapter adds rank numbers for each matrix; kept in float32 beside bfloat16 it also adds
    the input of each matrix, which is cast there and back.
    """
    shape = training.shape
    queries, keys = shape.widths
    # Keys and values are repeated for their queries where the kernel does not do it.
    repeated = keys if shape.heads == shape.kv_heads else queries
    attention = 2 * queries + 2 * repeated
    numbers = 4 * shape.hidden + attention + 4 * shape.intermediate * shape.active
    if training.lora is not None:
        numbers += training.lora * len(shape.adapted)
        if training.half:
            numbers += sum(inputs for inputs, _ in shape.adapted)
    return 2 * 4 * shape.hidden + training.number * numbers


def _activations(training: Training) -> float:
    """Bytes kept for the backward pass of a micro-batch, masks and unpacked experts included."""
    shape = training.shape
    tokens = training.batch * training.row
    if training.part is not None:
        tokens = min(tokens, max(training.part, training.row))
    layer = tokens * layer_bytes(training)
    unpacked = 0
    if training.quantize is not None and shape.experts > 1:
        # 4-bit experts are unpacked whole, and kept where a layer is not run again.
        unpacked = training.number * shape.layer
    sequences = max(tokens // training.row, 1)
    if training.kind == "dpo" and not training.share_prompt:
        sequences *= 2
    mask = 0
    if sequences > 1:
        # Padded rows need a mask of width x width, as truth values and as numbers to add.
        mask = sequences * (training.prompt + training.speech) ** 2 * (1 + training.number)
    if training.checkpointing:
        inputs = tokens * training.stream * shape.hidden * shape.layers
        return inputs + layer + mask + unpacked
    return shape.layers * (layer + unpacked) + mask


def hours(training: Training, tokens: float, card: Card) -> float | None:
    """Estimated hours for a number of tokens on all cards; None where the card's arithmetic is not known.

    A weight costs a token 2 operations forward, 2 for the gradient of its input, 2 for its own gradient where it is
    trained (Kaplan et al. 2020, section 2.1), and 2 more where the layer is run again. Causal attention over W tokens
    costs 2 W x width forward and 2.5 times as much backward.
    """
    if card.tflops is None:
        return None
    passes = 6 if training.lora is None else 4
    attention_passes = 3.5
    if training.checkpointing:
        passes += 2
        attention_passes += 1
    shape = training.shape
    width = training.prompt + training.speech
    attention = 2 * width * shape.widths[0] * shape.layers * attention_passes
    # 4-bit weights are unpacked before every use.
    slower = 1.25 if training.quantize else 1.0
    operations = tokens * (passes * shape.used + attention) * slower
    return operations / (card.tflops * 1e12 * UTILISATION * training.processes) / 3600


def shortfall(training: Training, card: Card) -> float:
    """GiB by which a training is too large for a card; negative where it fits."""
    return memory(training).total / GIB - card.gib * (1 - MARGIN)


def half_on_cpu(shape: Shape | None) -> bool:
    """Whether a training on this CPU computes in bfloat16 where nothing is said: it has AMX, and the model is no toy.

    Without AMX bfloat16 is slower than float32 on many CPUs. Models below SMALL keep float32 everywhere, so that what
    is known of them does not depend on the machine.
    """
    if shape is None or shape.parameters < SMALL:
        return False
    import torch

    return not torch.cuda.is_available() and cpu_has(AMX)


def _group_memory() -> float:
    """Bytes that this process's container holds, without copies of files, which the system gives up when asked."""
    held = float((_GROUP / "memory.current").read_text(encoding="utf-8"))
    for line in (_GROUP / "memory.stat").read_text(encoding="utf-8").splitlines():
        name, value = line.split()
        if name in ("active_file", "inactive_file"):
            held -= float(value)
    return held


def machine() -> Card:
    """The memory that this process can have on this machine, as a card; a container's limit counts."""
    import psutil

    free = float(psutil.virtual_memory().available)
    limit = _GROUP / "memory.max"
    if limit.is_file() and limit.read_text(encoding="utf-8").strip().isdigit():
        free = min(free, float(limit.read_text(encoding="utf-8")) - _group_memory())
    # What the process holds already is part of any estimate.
    held = psutil.Process().memory_info().rss
    return Card(name="this machine", gib=(free + held) / GIB)


def refuse(training: Training, card: Card, name: str) -> None:
    """Make sure that a training fits.

    Raises:
        UserError: the card is too small, or a row is longer than the model can read; says by how much and the first
            changes, tried in order, with which it would fit.
    """
    longest = training.prompt + training.speech
    positions = training.shape.positions
    if positions is not None and longest > positions:
        raise UserError(
            f"{name}: rows of about {longest:,} tokens are longer than the model's {positions:,}; "
            "set train.max_length to leave them out, or take a model with a longer context"
        )
    over = shortfall(training, card)
    if over <= 0:
        return
    needed = memory(training)
    if training.on_cpu:
        raise UserError(
            f"{name}: needs about {needed.total / GIB:.1f} GiB ({needed}), and {card.gib:.1f} GiB of memory are free "
            f"here; {_advice(training, card)}"
        )
    where = "1 card" if training.processes == 1 else f"each of {training.processes} cards"
    raise UserError(
        f"{name}: needs about {needed.total / GIB:.0f} GiB on {where} ({needed}), {over:.0f} GiB more than "
        f"{card.name} has to give; {_advice(training, card)}"
    )


def _changes(training: Training) -> list[tuple[str, dict[str, Any]]]:
    """Settings that save memory, with the fields they change; those that change least of the training come first."""
    if training.on_cpu:
        half = (training.prompt + training.speech) // 2
        return [
            ("train.gradient_checkpointing true", {"checkpointing": True}),
            ("share_prompt true", {"share_prompt": training.kind == "dpo"}),
            ("train.per_device_train_batch_size 1 with gradient_accumulation_steps", {"batch": 1}),
            (f"train.max_length {half}", {"prompt": max(half - training.speech, 1)}),
            ("lora.r 16 in place of training every weight", {"lora": training.lora or 16}),
        ]
    return [
        ("train.per_device_train_batch_size 1 with gradient_accumulation_steps", {"batch": 1}),
        ("train.gradient_checkpointing true", {"checkpointing": True}),
        ("share_prompt true", {"share_prompt": training.kind == "dpo"}),
        (
            "train.precompute_ref_log_probs true",
            {"reference": "base" if training.reference == "base" else "none"},
        ),
        ("lora.r 64 in place of training every weight", {"lora": training.lora or 64}),
        ("quantize nf4", {"quantize": "nf4"}),
        (
            "launch configs/accelerate/zero3.yaml on 8 cards without quantize",
            {"sharding": "zero3", "processes": 8, "quantize": None},
        ),
    ]


def _advice(training: Training, card: Card) -> str:
    """The settings with which a training fits a card, or that none of them is enough."""
    changes = _changes(training)
    for name, fields in changes:
        changed = training.model_copy(update=fields)
        if changed != training and shortfall(changed, card) <= 0:
            return f"set {name}"
    # No single change is enough: add up those that help.
    names: list[str] = []
    for name, fields in changes:
        changed = training.model_copy(update=fields)
        if changed == training or memory(changed).total >= memory(training).total:
            continue
        training = changed
        names.append(name)
        if shortfall(training, card) <= 0:
            return f"set {', '.join(names)}"
    if training.on_cpu:
        return "take a larger machine, a smaller model or shorter rows"
    return "take a larger card, a smaller model or shorter rows"


def check_spread(launch: str, tree: dict[str, Any], processes: int) -> None:
    """Make sure that an accelerate config can start several processes where several are asked for.

    Raises:
        UserError: it always starts one (distributed_type 'NO'), and more are asked for.
    """
    # YAML reads a bare NO as false.
    if processes > 1 and tree.get("distributed_type") in ("NO", False):
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
    by_stage: dict[Any, Sharding] = {2: "zero2", 3: "zero3"}
    return by_stage.get(stage, "none"), processes
