"""`debate-rl serve`: the command of the server that a config needs, printed or started."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from debate_rl.cli.execute import ConfigFile, Overrides, at_work
from debate_rl.errors import UserError

if TYPE_CHECKING:
    from debate_rl.engines.server.commands import Command, Deployment
    from debate_rl.runs.run import Run

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_MARGIN = 1.25
"""Prompts are planned by characters a token, and their last speeches are not written yet."""
_PORT = 8000


def serve(
    config: ConfigFile,
    overrides: Overrides = None,
    start: Annotated[bool, typer.Option("--start", help="Start it here, in place of this command.")] = False,
) -> None:
    """Print the command of the server that a config needs: vLLM's, or llama.cpp's for a .gguf file."""
    with at_work("serve"):
        commands = server_commands(config, overrides or [])
    if start:
        _start(commands)
    from debate_rl.engines.server.commands import all_named

    typer.echo(all_named(commands))
    if len(commands) > 1:
        typer.echo(
            f"# {len(commands)} models, a server each: engine.url is one url, so put a router that knows them by "
            "name in front (docs/guides/servers.md)"
        )


def server_commands(config_path: Path, overrides: list[str]) -> list[Command]:
    """The command of each model that a run asks for, of a study its first seed's.

    Raises:
        UserError: the config is not valid, or is run without a server.
    """
    from debate_rl.config.tree import load_config
    from debate_rl.engines.server.commands import llama_command, vllm_command
    from debate_rl.runs.run import Run
    from debate_rl.runs.study import seed_configs

    run = Run(seed_configs(load_config(config_path, overrides))[0])
    if run.config.engine.kind != "server":
        raise UserError(
            f"{config_path} runs its models in this process; set engine.kind=server and "
            "engine.url=http://localhost:8000/v1"
        )
    commands = []
    for served in _deployments(run):
        is_gguf = served.path.endswith(".gguf")
        commands.append(llama_command(served) if is_gguf else vllm_command(served))
    return commands


def _deployments(run: Run) -> list[Deployment]:
    """The models that the run's stages ask for, by what a plan of them asks."""
    from debate_rl.engines.server.adapters import adapter_name
    from debate_rl.engines.server.commands import Deployment
    from debate_rl.plan.plan import plan

    engine = run.config.engine
    longest: dict[str, int] = {}
    for planned in plan(run):
        for share in planned.shares:
            longest[share.model] = max(longest.get(share.model, 0), share.longest)
    if not longest:
        raise UserError("no stage of the config asks a model; there is nothing to serve")
    url = urlsplit(str(engine.url))  # a server has one
    host = url.hostname or "127.0.0.1"
    folders = _adapter_folders(run)
    rank = max([_trained_rank(run), *map(_rank, folders)])
    made = []
    for index, (name, tokens) in enumerate(longest.items()):
        path = run.resolve(name)
        own = [folder for folder in folders if _belongs(folder, name, path)]
        made.append(
            Deployment(
                name=name,
                path=path,
                host="127.0.0.1" if host in _LOOPBACK else host,
                port=(url.port or _PORT) + index,
                longest=round(_MARGIN * tokens) + run.protocol().max_new_tokens,
                context=_context(path),
                concurrency=engine.concurrency,
                adapters={} if engine.load_adapters else {adapter_name(folder): str(folder) for folder in own},
                rank=rank,
                loads=engine.load_adapters,
                cpu=_on_cpu(engine.device),
                dtype=engine.dtype,
                key_env=engine.key_env,
            )
        )
    return made


def _adapter_folders(run: Run) -> list[Path]:
    """Adapters that the run has trained, and those of other runs that its players name."""
    found = [path.parent.resolve() for path in sorted(run.folder.glob("[!.]*/**/adapter/adapter_config.json"))]
    for stage in run.config.stages.values():
        for player in getattr(stage, "players", ()):
            folder = Path(str(player).partition("@")[0])
            for place in (folder / "adapter", folder):
                if (place / "adapter_config.json").is_file():
                    found.append(place.resolve())
                    break
    return list(dict.fromkeys(found))


def _belongs(adapter: Path, name: str, path: str) -> bool:
    """Whether an adapter was trained on a model."""
    from debate_rl.records import read_json

    base = read_json(adapter / "adapter_config.json").get("base_model_name_or_path")
    if base in (None, "", name, path):
        return True
    # It may have moved since. Models that a run made are all called `model`, in folders named after their stages.
    parts = 2 if Path(path).name == "model" else 1
    return Path(str(base)).parts[-parts:] == Path(path).parts[-parts:]


def _rank(adapter: Path) -> int:
    from debate_rl.records import read_json

    return int(read_json(adapter / "adapter_config.json").get("r") or 0)


def _trained_rank(run: Run) -> int:
    """Largest rank of the adapters that the run's stages train."""
    ranks = [0]
    for stage in run.config.stages.values():
        lora = getattr(stage, "lora", None)
        ranks.append(getattr(lora, "r", 0) or 0)
    return max(ranks)


def _context(path: str) -> int | None:
    """Tokens that a model in a folder reads."""
    from debate_rl.engines.load import context_of, load_config

    return context_of(load_config(path)) if Path(path).is_dir() else None


def _on_cpu(device: str | None) -> bool:
    if device is not None:
        return device == "cpu"
    import torch

    return not torch.cuda.is_available()


def _start(commands: list[Command]) -> None:
    """Become the server; this process does not come back.

    Raises:
        UserError: the program is not installed here, or there are several.
    """
    from debate_rl.engines.server.commands import environment

    if len(commands) > 1:
        raise UserError("--start starts one server, and the config asks for several models; start each by its command")
    (command,) = commands
    program = command.words[0]
    if shutil.which(program) is None:
        raise UserError(
            f"--start: {program} is not on the PATH; activate its environment, or run the command that "
            "debate-rl serve prints without --start where it is"
        )
    if command.key_env is not None and not os.environ.get(command.key_env):
        raise UserError(f"--start: the variable {command.key_env} of engine.key_env is not set; export the key in it")
    os.execvpe(program, list(command.words), environment(command, os.environ))
