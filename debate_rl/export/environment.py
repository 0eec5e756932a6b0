"""The door to the `verifiers` environment of a debate, which needs the package only when it is opened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debate_rl.errors import UserError

if TYPE_CHECKING:
    from debate_rl.export.verifiers_env import DebateEnv

PLUGIN = "debate-rl"
"""Name under which verifiers finds the environment, its tasks and its harness: that of this package."""


def load_environment(
    config: str | Path, overrides: Sequence[str] = (), split: str = "train", **settings: Any
) -> DebateEnv:
    """Make a `verifiers` environment of a config's debates, for trainers that use verifiers (prime-rl, tinker).

    Questions, protocol, judge and the engine that runs the judge are those of the config; the speeches are written by
    the trainer's model.

    Args:
        config: a YAML file, as for `debate-rl run`. If its run has a finished judge stage, that judge decides.
        overrides: `key.path=value`, as on the command line.
        split: questions to debate, `train` or `test`.
        settings: further fields of `DebateEnvConfig`, such as `rewards={"invalid_quotes": 0.5}` or
            `opponent={"model": "another-model"}`.

    Returns:
        The environment. Each speech is a trace of its own, with the reward of its debate.

    Raises:
        UserError: the package is not installed, or the config can not be read or played here.
    """
    try:
        import verifiers.v1  # noqa: F401
    except ImportError as error:
        raise UserError(
            "load_environment needs the package verifiers: pip install 'debate-rl[verifiers]', or pip install "
            "'verifiers>=0.4,<0.5'"
        ) from error
    from pydantic import ValidationError

    from debate_rl.export.verifiers_env import DebateEnv, DebateEnvConfig
    from debate_rl.records import explain

    tasks = {"id": PLUGIN, "config": str(config), "overrides": list(overrides), "split": split}
    try:
        checked = DebateEnvConfig.model_validate({"taskset": tasks, **settings})
    except ValidationError as error:
        raise UserError(f"load_environment: {explain(error)}") from error
    return DebateEnv(checked)
