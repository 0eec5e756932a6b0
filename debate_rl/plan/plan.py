"""What a config would run, before anything runs: debates, texts, tokens, and the first prompt of every seat."""

from __future__ import annotations

from pathlib import Path

from debate_rl.plan.counting_engine import CountingEngine
from debate_rl.records import Record
from debate_rl.runs.run import Run
from debate_rl.stages.habits import Sizes, measured_habits, model_sizes, size_of


class Share(Record):
    """What one model does in a stage."""

    model: str
    adapter: str | None = None
    texts: int = 0
    verdicts: int = 0
    prompt_tokens: int = 0
    read_tokens: int = 0
    new_tokens: int = 0
    longest: int = 0
    """Tokens of the longest prompt."""


class Planned(Record):
    """One stage before it runs.

    Example:
        Planned(stage="tournament", kind="tournament", debates=960, speeches=2304, prompt_tokens=240000, ...)
    """

    stage: str
    kind: str
    debates: int = 0
    speeches: int = 0
    """Texts to write, the candidates and simulated opponents of Best-of-N players included; equal ones counted once."""
    verdicts: int = 0
    """Forwards that score answers; one for each order in which a judge is asked."""
    prompt_tokens: int = 0
    """Prompt tokens of texts and verdicts, shared beginnings counted each time, as a server without a cache charges."""
    read_tokens: int = 0
    """The same with each beginning read once."""
    new_tokens: int = 0
    """As many as speeches were measured to have, else at most."""
    note: str = ""
    shares: tuple[Share, ...] = ()
    """The same by model."""


def plan(run: Run, only: set[str] | None = None, like: Path | None = None) -> list[Planned]:
    """Count what each stage would do.

    Args:
        run: the experiment; nothing in its folder is touched.
        only: names of stages; None is all.
        like: folder of a finished run whose speeches are like these will be, in length and variety; None takes what
            the run's own folder holds, else the most that the protocol allows.

    Raises:
        UserError: questions can not be read, or a stage names a player that there is none of.
    """
    sizes = model_sizes(run)
    habits = measured_habits(run.folder if like is None else like)
    engine = CountingEngine(habits, lambda model: size_of(sizes, model)[1])
    return [_planned(run, name, sizes, engine) for name in run.config.stages if only is None or name in only]


def _planned(run: Run, name: str, sizes: Sizes, engine: CountingEngine) -> Planned:
    """Count one stage."""
    stage = run.config.stages[name]
    engine.begin()
    done = stage.rehearse(run, name, engine)
    shares = []
    for (model, adapter), own in done.asked.items():
        a_token = size_of(sizes, model)[0]
        counts = {"texts": own.texts, "verdicts": own.verdicts, "new_tokens": own.new}
        tokens = {"prompt_tokens": (own.write + own.score) / a_token, "read_tokens": own.once / a_token}
        scaled = {key: round(done.scale * value) for key, value in {**counts, **tokens}.items()}
        shares.append(Share(model=model, adapter=adapter, longest=round(own.longest / a_token), **scaled))
    return Planned(
        stage=name,
        kind=stage.kind,
        debates=done.debates,
        speeches=done.total("texts"),
        verdicts=done.total("verdicts"),
        prompt_tokens=sum(share.prompt_tokens for share in shares),
        read_tokens=sum(share.read_tokens for share in shares),
        new_tokens=sum(share.new_tokens for share in shares),
        note=stage.plan_note(run),
        shares=tuple(shares),
    )
