"""The engine of a worker process."""

from __future__ import annotations

from debate_rl.config.tree import Config
from debate_rl.engines.request import Engine
from debate_rl.runs.run import Run


def member_engine(config: Config, local: int) -> Engine:
    """The engine of a crew's process: on the device of its number, where the config names none."""
    import torch

    cards = torch.cuda.device_count()
    if config.engine.device is None and cards:
        engine = config.engine.model_copy(update={"device": f"cuda:{local % cards}"})
        config = config.model_copy(update={"engine": engine})
    if config.engine.threads:
        torch.set_num_threads(config.engine.threads)
    return Run(config).open_engine()
