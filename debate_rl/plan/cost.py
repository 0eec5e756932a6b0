"""What a plan costs on a card, at a server or on the machine of an earlier run: memory, hours and money by stage.

Playing, per process, in bytes, for T = engine.batch_tokens and C = engine.cache_tokens:

    weights      every model that the stage asks, in bfloat16 (float32 without a card), and an adapter for each player
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
from debate_rl.errors import UserError
from debate_rl.plan.plan import Planned, Share, plan
from debate_rl.plan.training_cost import Estimated, estimates
from debate_rl.records import Record, read_json
from debate_rl.runs.run import Run
from debate_rl.trainers.common.memory import GIB, OVERHEAD, UTILISATION, Card
from debate_rl.trainers.common.model_shapes import Shape, shape_of

LAUNCH = 0.0006
"""Seconds that a layer takes at least in a step of writing, whatever the card."""
RANK = 64
"""Of the adapters that a stage plays with, for their memory."""
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
        card: what it is played on; None knows no hours, but those like a run's.
        cards: how many play, as processes of `accelerate launch`.
        hourly: price of one card for an hour; a server is paid by its tokens (`engine.prices`).
        like: folder of a finished run on the same machine, of any size.

    Raises:
        UserError: the folder holds no finished run, or see `estimates`.
    """
    trained = {row.stage: row for row in estimates(run, {row.stage for row in planned}, like)}
    seconds = {} if like is None else _like(run, like)
    return [_bill(run, row, trained.get(row.stage), card, cards, hourly, seconds) for row in planned]


def _bill(
    run: Run,
    row: Planned,
    training: Estimated | None,
    card: Card | None,
    cards: int,
    hourly: float | None,
    seconds: dict[str, float],
) -> Bill:
    """Price one stage."""
    server = run.config.engine.kind == "server"
    need = {} if server or not row.shares else playing_memory(run, row.shares, card is not None)
    spent: float | None = None
    if row.stage in seconds:
        spent = seconds[row.stage] * _work(row, training) / 3600
    elif card is not None and not server:
        played = [_hours(run, share, card) for share in row.shares]
        own = [hours / cards for hours in played if hours is not None]
        if training is not None and training.hours is not None:
            own.append(training.hours)
        spent = sum(own) if len(own) == len(played) + (training is not None) else None
    cost = _paid(run, row.shares) if server else None
    if not server and hourly is not None and spent is not None:
        cost = hourly * spent * max(cards, training.processes if training else 1)
    return Bill(
        stage=row.stage,
        play_gib=sum(need.values()) / GIB if need else None,
        parts=", ".join(f"{name} {size / GIB:.1f}" for name, size in need.items() if size >= 0.05 * GIB),
        train_gib=None if training is None else training.gib,
        hours=spent,
        cost=cost,
    )


def playing_memory(run: Run, shares: Sequence[Share], half: bool) -> dict[str, float]:
    """Bytes on each card while a stage's games are played; empty where a model's shape is not known."""
    shapes = {share.model: shape_of(run.resolve(share.model)) for share in shares}
    known = [shape for shape in shapes.values() if shape is not None]
    if len(known) < len(shapes):
        return {}
    unit, held = 2 if half else 4, run.config.engine.batch_tokens
    adapters = [shapes[share.model] for share in shares if share.adapter is not None]
    rows = max(_rows(run, share) for share in shares)
    return {
        "weights": float(unit * sum(shape.parameters for shape in known)),
        "adapters": 4.0 * sum(shape.lora(RANK) for shape in adapters if shape is not None),
        "cache": max(_cache(shape, unit) for shape in known) * (held + run.config.engine.cache_tokens),
        "activations": max(_layer(shape, unit) for shape in known) * held,
        "logits": 4.0 * max(shape.vocabulary for shape in known) * rows,
        "overhead": OVERHEAD if half else 0.0,
    }


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
    if not (folder / "config.yaml").is_file():
        raise UserError(
            f"--like {folder}: no config.yaml there; name the folder of a finished run, runs/NAME or a seed's"
        )
    timed = {path.parent.name: read_json(path)["seconds"] for path in folder.glob("*/timing.json")}
    earlier = Run(load_config(folder / "config.yaml"), say=run.say)
    there = {name for name in earlier.config.stages if name in timed}
    if not there:
        raise UserError(f"--like {folder}: no stage of it is finished")
    trained = {row.stage: row for row in estimates(earlier, there, folder)}
    works = {row.stage: _work(row, trained.get(row.stage)) for row in plan(earlier, there, folder)}
    return {name: timed[name] / work for name, work in works.items() if work}
