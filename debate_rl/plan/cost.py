"""What a plan costs on a card, at a server or on the machine of an earlier run: memory, hours and money by stage.

Playing, per process, in bytes, for T = engine.batch_tokens and C = engine.cache_tokens:

    weights      every model that the stage asks, those that write in engine.dtype (without one bfloat16, on a CPU what
                 it computes fastest), those whose probabilities are read in engine.judge_dtype, and an adapter for each
                 player; of nf4 the layers alone are in 4 bits
    cache        keys and values of T + C tokens
    activations  one layer's of T tokens
    logits       4 x vocabulary for each text that is written at a time

Hours on a card are estimates (ours): prompts are read at UTILISATION of its arithmetic; a step of writing reads all
weights once, at half the card's bandwidth, and takes LAUNCH a layer at least. Hours like an earlier run's are its
measured seconds, by what each of its stages read, wrote and trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from debate_rl.config.tree import load_config
from debate_rl.engines.number_formats import BYTES, Format, computes_in, network_format
from debate_rl.errors import UserError
from debate_rl.game import run_files
from debate_rl.plan.plan import Planned, Share, plan
from debate_rl.plan.training_cost import Estimated, estimates
from debate_rl.records import Record, read_json
from debate_rl.runs.run import Run
from debate_rl.trainers.common.memory import GIB, NF4, OVERHEAD, UTILISATION, Card
from debate_rl.trainers.common.model_shapes import Shape, shape_of

LAUNCH = 0.0006
"""Seconds that a layer takes at least in a step of writing, whatever the card."""
RANK = 64
"""LoRA rank assumed for the adapters that a stage plays with."""
_WRITE, _TRAIN = 4, 3
"""What a token that is written or trained on costs, in tokens that are read; only where a run's mix changes."""


class Bill(Record):
    """What a stage costs.

    Example:
        Bill(stage="tournament", play_gib=24.1, train_gib=None, hours=1.7, cost=4.25)
    """

    stage: str
    play_gib: float | None = None
    """On each card while games are played; None where a model's shape is not known, or nothing is played."""
    parts: str = ""
    train_gib: float | None = None
    hours: float | None = None
    cost: float | None = None


def bills(
    run: Run,
    planned: Sequence[Planned],
    card: Card | None = None,
    cards: int = 1,
    hourly: float | None = None,
    like: Path | None = None,
) -> list[Bill]:
    """Price each stage of a plan.

    Args:
        run: the experiment; a config's `hardware` is taken into account in its trainings.
        planned: its plan.
        card: the GPU that it is played on; None gives hours only where `like` is set.
        cards: number of cards that play, as processes of `accelerate launch`.
        hourly: price of one card for an hour; a server is paid by its tokens (`engine.prices`).
        like: folder of a finished run on the same machine, of any size.

    Raises:
        UserError: the folder holds no finished run, or see `estimates`.
    """
    stages = {row.stage for row in planned}
    trainings = {training.stage: training for training in estimates(run, stages, like)}
    seconds_per_work = {} if like is None else _like(run, like)
    priced = []
    for row in planned:
        training = trainings.get(row.stage)
        hours = None
        if row.stage in seconds_per_work:
            hours = seconds_per_work[row.stage] * _work(row, training) / 3600
        elif card is not None and run.config.engine.kind != "server":
            hours = _hours_on(run, row, training, card, cards)
        priced.append(_bill(run, row, training, hours, card, cards, hourly))
    return priced


def _hours_on(run: Run, row: Planned, training: Estimated | None, card: Card, cards: int) -> float | None:
    """Hours of a stage on cards; None where one of its models, or its training, is not known."""
    total = 0.0
    for share in row.shares:
        hours = _hours(run, share, card)
        if hours is None:
            return None
        total += hours / cards
    if training is not None:
        if training.hours is None:
            return None
        total += training.hours
    return total


def _bill(
    run: Run,
    row: Planned,
    training: Estimated | None,
    hours: float | None,
    card: Card | None,
    cards: int,
    hourly: float | None,
) -> Bill:
    """Price one stage whose hours are known, or not."""
    server = run.config.engine.kind == "server"
    memory: dict[str, float] = {}
    if row.shares and not server:
        memory = playing_memory(run, row.shares, card is not None)
    cost = None
    if server:
        cost = _paid(run, row.shares)
    elif hourly is not None and hours is not None:
        cost = hourly * hours * max(cards, training.processes if training else 1)
    parts = [f"{name} {size / GIB:.1f}" for name, size in memory.items() if size >= 0.05 * GIB]
    return Bill(
        stage=row.stage,
        play_gib=sum(memory.values()) / GIB if memory else None,
        parts=", ".join(parts),
        train_gib=None if training is None else training.gib,
        hours=hours,
        cost=cost,
    )


def playing_memory(run: Run, shares: Sequence[Share], on_card: bool) -> dict[str, float]:
    """Bytes on each card while a stage's games are played, by part; empty where a model's shape is not known.

    A model that writes texts in one number format and is read in another is in memory twice.

    Args:
        run: the experiment.
        shares: what each model does in the stage.
        on_card: whether it is played on a GPU, else on this machine's processor.
    """
    shapes: dict[str, Shape] = {}
    for share in shares:
        shape = shape_of(run.resolve(share.model))
        if shape is None:
            return {}
        shapes[share.model] = shape
    writers = {share.model: _unit(run, share.model, on_card) for share in shares if share.texts}
    readers = {share.model: _unit(run, share.model, on_card, reads=True) for share in shares if not share.texts}
    readers |= {share.model: _unit(run, share.model, on_card, reads=True) for share in shares if share.verdicts}
    # One copy where both formats are the same.
    engine = run.config.engine
    same_bits = (engine.dtype == "nf4") == (engine.judge_dtype == "nf4")
    others = {model: unit for model, unit in readers.items() if not (same_bits and writers.get(model) == unit)}
    weights = {"weights": sum(_size(shapes[model], unit, engine.dtype) for model, unit in writers.items())}
    second = sum(_size(shapes[model], unit, engine.judge_dtype) for model, unit in others.items())
    if set(others) & set(writers):
        weights["weights read by judges"] = second
    else:
        weights["weights"] += second
    units = {model: max(writers.get(model, 0), readers.get(model, 0)) for model in shapes}
    batch_tokens = run.config.engine.batch_tokens
    cached_tokens = batch_tokens + run.config.engine.cache_tokens
    texts_at_a_time = max(_rows(run, share) for share in shares)
    adapters = [shapes[share.model] for share in shares if share.adapter is not None]
    return {
        **{name: float(size) for name, size in weights.items()},
        "adapters": 4.0 * sum(shape.lora(RANK) for shape in adapters),
        "cache": max(_cache(shape, units[model]) for model, shape in shapes.items()) * cached_tokens,
        "activations": max(_layer(shape, units[model]) for model, shape in shapes.items()) * batch_tokens,
        "logits": 4.0 * max(shape.vocabulary for shape in shapes.values()) * texts_at_a_time,
        "overhead": OVERHEAD if on_card else 0.0,
    }


def _unit(run: Run, model: str, on_card: bool, reads: bool = False) -> int:
    """Bytes of one number that a model computes with, which writes texts, or whose probabilities are read."""
    engine = run.config.engine
    wanted = engine.judge_dtype if reads else engine.dtype
    if wanted in BYTES:
        return BYTES[wanted]
    if wanted == "nf4" and reads:
        return BYTES["float32"]
    folder = run.resolve(model)
    if on_card or not Path(folder).is_dir():
        return 2 if on_card else 4
    return BYTES.get(computes_in(network_format(wanted, folder, "cpu", reads)), 4)


def _size(shape: Shape, unit: int, wanted: Format | None) -> float:
    """Bytes of a model's weights: so many each, but for those in 4 bits."""
    in_4_bits = shape.layers * shape.layer if wanted == "nf4" else 0.0
    return NF4 * in_4_bits + unit * (shape.parameters - in_4_bits)


def _cache(shape: Shape, unit: int) -> float:
    """Bytes of a token's keys and values in all layers."""
    return 2.0 * shape.widths[1] * shape.layers * unit


def _layer(shape: Shape, unit: int) -> float:
    """Bytes that one layer needs of a token on its way."""
    return float(unit) * (4 * shape.hidden + sum(shape.widths) + 3 * shape.intermediate * shape.active)


def _rows(run: Run, share: Share) -> int:
    """Texts that are written at a time: what fits in the engine's tokens beside the prompts they share."""
    if not share.texts:
        return 1
    own = share.read_tokens / (share.texts + share.verdicts) + share.new_tokens / share.texts
    return max(1, min(share.texts, int(run.config.engine.batch_tokens / own)))


def _hours(run: Run, share: Share, card: Card) -> float | None:
    """Hours that one card takes for a model's part; None where card or model are not known."""
    shape = shape_of(run.resolve(share.model))
    if shape is None or card.tflops is None or card.gbs is None:
        return None
    attention = 2 * share.longest * shape.widths[0] * shape.layers
    reading = share.read_tokens * (2 * shape.used + attention) / (card.tflops * 1e12 * UTILISATION)
    step = max(2 * shape.parameters / (card.gbs * 1e9 / 2), LAUNCH * shape.layers)
    return (reading + share.new_tokens / _rows(run, share) * step) / 3600


def _paid(run: Run, shares: Sequence[Share]) -> float | None:
    """What a server is paid; None where a model has no price."""
    total, prices = 0.0, run.config.engine.prices
    for share in shares:
        price = prices.get(share.model, prices.get("*"))
        if price is None:
            return None
        total += (share.prompt_tokens * price.prompt + (share.new_tokens + share.verdicts) * price.new) / 1e6
    return total


def _work(row: Planned, training: Estimated | None) -> float:
    """What a stage does, in tokens that are read."""
    return row.read_tokens + _WRITE * row.new_tokens + _TRAIN * (0 if training is None else training.tokens)


def _like(run: Run, folder: Path) -> dict[str, float]:
    """Seconds for each token of work in the stages of an earlier run, by name.

    Raises:
        UserError: the folder holds no finished stage.
    """
    if not (folder / run_files.CONFIG).is_file():
        raise UserError(
            f"--like {folder}: no config.yaml there; name the folder of a finished run, runs/NAME or a seed's"
        )
    seconds = {path.parent.name: read_json(path)["seconds"] for path in folder.glob(f"*/{run_files.TIMING}")}
    earlier = Run(load_config(folder / run_files.CONFIG), say=run.say)
    finished = {name for name in earlier.config.stages if name in seconds}
    if not finished:
        raise UserError(f"--like {folder}: no stage of it is finished")
    trainings = {row.stage: row for row in estimates(earlier, finished, folder)}
    seconds_per_work = {}
    for row in plan(earlier, finished, folder):
        work = _work(row, trainings.get(row.stage))
        if work:
            seconds_per_work[row.stage] = seconds[row.stage] / work
    return seconds_per_work
