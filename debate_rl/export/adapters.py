"""Trained adapters as folders that PEFT and the hub read, with their model cards and without paths of this machine."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from debate_rl.data.models.library import LIBRARY
from debate_rl.engines.weights import BASE_FILE, check_sums, write_sums
from debate_rl.errors import UserError, nearest
from debate_rl.export.tables import Part
from debate_rl.game import run_files
from debate_rl.records import read_json, write_json, write_text

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
CARD = "README.md"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_CACHE = re.compile(r"models--([\w.-]+?)--([\w.-]+)")


def write_adapters(parts: Sequence[Part], out: Path, stage: str | None = None) -> dict[str, Path]:
    """Write a folder for every adapter of a run: STAGE, or SEED-STAGE where the run is a study.

    Args:
        parts: the finished stages.
        out: the folder that holds them.
        stage: name of the only stage to write; None takes all.

    Returns:
        The folders by name.

    Raises:
        UserError: no stage has an adapter, the one that is asked for has none, or a file was changed.
    """
    is_study = len({part.run for part in parts}) > 1
    sources: dict[str, tuple[Part, Path]] = {}
    for part in parts:
        for config in sorted(part.stage.folder.rglob(CONFIG)):
            inside = config.parent.relative_to(part.stage.folder).parts
            # Iterations and adversarial rounds have adapters of their own: STAGE-iteration2.
            name = "-".join([part.stage.name, *(place for place in inside if place != "adapter")])
            sources[f"{part.run}-{name}" if is_study else name] = (part, config.parent)
    if not sources:
        raise UserError("no finished stage of this run trained an adapter; whole models (lora: null) are not exported")
    if stage is not None:
        stages = sorted({part.stage.name for part, _ in sources.values()})
        sources = {name: source for name, source in sources.items() if source[0].stage.name == stage}
        if not sources:
            raise UserError(f"--stage {stage} has no adapter; {nearest(stage, stages)}")
    folders = {}
    for name, (part, adapter) in sources.items():
        folders[name] = out / name
        _write_adapter(part, adapter, out / name)
    return folders


def public_name(model: str) -> str:
    """Name of a base model for others: that of the hub where it has one, else the last part of its path."""
    path = Path(model)
    if not path.is_dir() and _HUB_NAME.fullmatch(model):
        return model
    if path.name in LIBRARY:
        return LIBRARY[path.name].hub
    cached = _HUB_CACHE.search(model)
    return f"{cached[1]}/{cached[2]}" if cached else path.name


def _write_adapter(part: Part, adapter: Path, out: Path) -> None:
    """Copy one adapter, its config and base under public names, and write the card last."""
    check_sums(adapter)
    out.mkdir(parents=True, exist_ok=True)
    # The card of an earlier export would name weights that are half copied.
    (out / CARD).unlink(missing_ok=True)
    shutil.copyfile(adapter / WEIGHTS, out / WEIGHTS)
    config = read_json(adapter / CONFIG)
    base = public_name(str(config.get("base_model_name_or_path") or ""))
    write_json(out / CONFIG, {**config, "base_model_name_or_path": base})
    if (adapter / BASE_FILE).is_file():
        write_json(out / BASE_FILE, {**read_json(adapter / BASE_FILE), "model": base})
    calibrator = part.stage.folder / run_files.CALIBRATOR
    if calibrator.is_file():
        shutil.copyfile(calibrator, out / run_files.CALIBRATOR)
    write_sums(out)
    card_path = adapter / CARD
    card = card_path.read_text(encoding="utf-8") if card_path.is_file() else f"# {part.stage.name}\n"
    write_text(out / CARD, f"{_front_matter(base)}{card.rstrip()}\n\n{_use(base, out.name, calibrator.is_file())}")


def _front_matter(base: str) -> str:
    """What the hub reads of a card."""
    fields: dict[str, Any] = {"library_name": "peft", "tags": ["debate", "debate-rl", "lora"]}
    if "/" in base:
        # Lab models are not on the hub, which refuses a base that it does not know.
        fields |= {"base_model": base, "base_model_relation": "adapter"}
    return f"---\n{yaml.safe_dump(fields, sort_keys=False)}---\n\n"


def _use(base: str, name: str, is_judge: bool) -> str:
    """How to load the adapter."""
    made = f'dr.Judge(name="{name}", model="{base}"' if is_judge else f'dr.Debater("{name}", model="{base}"'
    lines = [
        "## Use",
        "",
        "```python",
        "import debate_rl as dr",
        "",
        f'player = {made}, adapter="FOLDER")',
        "```",
        "",
    ]
    return "\n".join(lines)
