"""Models on disk: check that weights are complete, fingerprint them, and match adapters with their base, without torch.

A safetensors file begins with the length of its header (8 bytes, little endian) and the header, JSON with the type,
shape and offsets of each tensor. So shapes and truncated files are known without reading the weights.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from threading import RLock
from typing import Any

from debate_rl.engines.file_hashes import changed_file, file_hashes, folder_hashes
from debate_rl.errors import UserError
from debate_rl.records import read_json, write_json

BASE_FILE = "base.json"
"""File beside an adapter: {"model": name, "fingerprint": of the base it was trained on}."""

SUMS_FILE = "sha256.json"
"""File beside weights that were trained here: {file name: SHA-256}."""
_NOT_SUMMED = (SUMS_FILE, "README.md")

LOADING = RLock()
"""Held while transformers loads a model. Transformers patches its classes meanwhile, so that weights stay untied, and
then restores what it found. If two threads loaded at once, the second would restore the patch, and every later model of
the process would stay untied."""

_CONFIGS = (
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
)
_OTHER_TOKENIZERS = ("*.model", "*.tiktoken", "merges.txt", "tekken.json", "vocab.json", "vocab.txt")
"""Files from which a tokenizer is made where there is no tokenizer.json."""
_HARMLESS_STARTS = ("gaussian", "orthogonal", "eva")
"""Initialisations of LoRA weights that leave the base as it is."""
_NOT_CONTENT = ("_name_or_path", "base_model_name_or_path", "transformers_version", "peft_version", "local_files_only")


def local_folder(model: str | Path) -> Path:
    """Folder of a model: the path itself, else the hub's files, downloaded into the hub cache if they are missing.

    Raises:
        UserError: there is no such folder, and the hub does not deliver a model of that name.
    """
    path = Path(model)
    if path.is_dir():
        return path
    if path.exists() or path.is_absolute() or str(model).startswith((".", "~")) or str(model).count("/") != 1:
        raise UserError(f"model not found: {model}; give a folder with config.json and *.safetensors, or a hub name")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    patterns = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
    try:
        return Path(snapshot_download(str(model), allow_patterns=patterns, local_files_only=True))
    except (OSError, ValueError):
        pass  # not in the cache: ask the hub
    try:
        return Path(snapshot_download(str(model), allow_patterns=patterns))
    except (OSError, ValueError, HfHubHTTPError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"model not found: {model} is no folder, and the hub did not give it ({first})") from error


def header(path: str | Path) -> dict[str, Any]:
    """Read the header of a safetensors file: tensor name -> {"dtype", "shape", "data_offsets"}.

    Raises:
        UserError: the file is missing, truncated, or not safetensors.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            # Before the read: of another file type these bytes may ask for exabytes.
            if length > path.stat().st_size:
                raise ValueError("cut off")
            entries = json.loads(file.read(length))
        entries.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a whole safetensors file; copy or save the weights again") from error
    size = path.stat().st_size
    expected = 8 + length + end
    if size != expected:
        raise UserError(f"{path}: cut off or damaged ({size} of {expected} bytes); copy it again")
    return dict(entries)


def weight_files(folder: str | Path) -> list[Path]:
    """The safetensors files of a model or adapter folder, sorted by name."""
    return sorted(Path(folder).glob("*.safetensors"))


def check_weights(model: str | Path) -> Path:
    """Check that a model's weights are complete, and return its folder.

    Raises:
        UserError: no such model, no config.json, no safetensors weights, a truncated file, or a missing shard.
    """
    folder = local_folder(model)
    if not (folder / "config.json").is_file():
        what = "an adapter, give it as the adapter" if (folder / "adapter_config.json").is_file() else "no config.json"
        raise UserError(f"{folder} is not a model folder ({what}); choose a folder with config.json and *.safetensors")
    # Transformers would load the base that the adapter names instead of this model, or download it.
    if (folder / "adapter_config.json").is_file():
        raise UserError(f"{folder} holds a model and an adapter; move the adapter's files into a folder of their own")
    _fields(folder / "config.json")
    files = weight_files(folder)
    if not files:
        raise UserError(f"{folder} has no *.safetensors weights; save the model with save_pretrained")
    for path in files:
        header(path)
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = _fields(index).get("weight_map")
        if not isinstance(shards, dict):
            raise UserError(f"{index} names no weights; copy it again")
        missing = sorted(set(map(str, shards.values())) - {path.name for path in files})
        if missing:
            raise UserError(f"{folder} lacks {missing[0]}, which {index.name} names; copy the missing shards")
    return folder


def fingerprint(model: str | Path) -> str:
    """Hash the weights, tokenizer and template of a model or adapter folder.

    Every byte counts. Hashes of large files are cached (see `file_hashes`), so only the first call takes time: one to
    three seconds per GB on one core, up to 50 s for 16 GB.

    Returns:
        16 hexadecimal digits.

    Raises:
        UserError: there is no such model or a file is damaged.
    """
    folder = local_folder(model)
    digest = hashlib.sha256()
    for name in (*_CONFIGS, *_other_configs(folder)):
        if (folder / name).is_file():
            digest.update(f"{name}\n{_config_content(folder / name)}\n".encode())
    files = weight_files(folder)
    for path, file_sha256 in zip(files, file_hashes(files), strict=True):
        digest.update(f"{path.name}\n{file_sha256}\n".encode())
    return digest.hexdigest()[:16]


def _other_configs(folder: Path) -> list[str]:
    """Names of further files that change what a model reads: named chat templates, tokenizers of other kinds."""
    patterns = ["additional_chat_templates/*.jinja"]
    if not (folder / "tokenizer.json").is_file():
        patterns += _OTHER_TOKENIZERS
    names: list[str] = []
    for pattern in patterns:
        names += sorted(path.relative_to(folder).as_posix() for path in folder.glob(pattern))
    return names


def write_sums(folder: str | Path) -> None:
    """Write the SHA-256 of every file of a folder beside them, except the model card, which may change later."""
    write_json(Path(folder) / SUMS_FILE, folder_hashes(Path(folder), without=_NOT_SUMMED))


def damaged_file(folder: str | Path) -> Path | None:
    """The first file that changed after `write_sums`; None if all are intact, or if the folder has no sums."""
    sums_path = Path(folder) / SUMS_FILE
    if not sums_path.is_file():
        return None
    return changed_file(Path(folder), read_json(sums_path))


def check_sums(folder: str | Path) -> None:
    """Check that a folder's files are those that were saved.

    Raises:
        UserError: a file is damaged or was changed.
    """
    damaged = damaged_file(folder)
    if damaged is not None:
        raise UserError(f"{damaged} is damaged or was changed since it was saved; copy it again, or train it anew")


def check_adapter(model: str | Path, adapter: str | Path) -> None:
    """Check that an adapter was trained on this model: by the fingerprint beside it, else by tensor shapes.

    Raises:
        UserError: not an adapter folder, missing weights, or an adapter of another base.
    """
    folder = Path(adapter)
    if not (folder / "adapter_config.json").is_file() or not (folder / "adapter_model.safetensors").is_file():
        raise UserError(f"{adapter} is not an adapter folder (adapter_config.json and adapter_model.safetensors)")
    check_adapter_kind(folder)
    tensors = header(folder / "adapter_model.safetensors")
    for name, entry in tensors.items():
        # Whole numbers are quantized weights without their scales: added as they are, they make the model speak noise.
        if "F" not in entry["dtype"]:
            raise UserError(f"adapter {adapter} holds {name} as {entry['dtype']}, not as fractions; save it in float32")
    base_path = folder / BASE_FILE
    if base_path.is_file():
        base = _fields(base_path)
        if base.get("fingerprint") != fingerprint(model):
            raise UserError(f"adapter {adapter} was trained on {base.get('model')}, not on {model}; use its own base")
        return
    misfit = _misfit(local_folder(model), tensors)
    if misfit:
        raise UserError(f"adapter {adapter} does not fit {model} ({misfit}); use the base it was trained on")


def check_adapter_kind(adapter: str | Path) -> None:
    """Check that an adapter only adds to its base, since every player of that base shares it in memory.

    Raises:
        UserError: it is not a LoRA adapter, or it changes the base's biases, weights or layers.
    """
    fields = _fields(Path(adapter) / "adapter_config.json")
    kind = fields.get("peft_type", "LORA")
    bias = fields.get("bias", "none")
    start = fields.get("init_lora_weights", True)
    if kind != "LORA":
        raise UserError(f"adapter {adapter} is of kind {kind!r}; only LoRA adapters are used: merge it into its model")
    merge = "which changes its base for all other players; train it without, or merge it into a model of its own"
    if bias != "none":
        raise UserError(f"adapter {adapter} was trained with bias: {bias}, {merge}")
    # PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA change the base's weights when they initialise.
    if isinstance(start, str) and start not in _HARMLESS_STARTS:
        raise UserError(f"adapter {adapter} was trained with init_lora_weights: {start}, {merge}")
    for name in ("layer_replication", "alora_invocation_tokens", "megatron_config"):
        if fields.get(name):
            raise UserError(f"adapter {adapter} was trained with {name}, which is not supported; train it without")


def own_tokens(adapter: str | Path) -> Any:
    """The tokens whose embeddings an adapter trains, as PEFT's `trainable_token_indices` names them; None for none."""
    return _fields(Path(adapter) / "adapter_config.json").get("trainable_token_indices") or None


def _fields(path: Path) -> dict[str, Any]:
    """Read the fields of a JSON file.

    Raises:
        UserError: it is missing or damaged.
    """
    fields = read_json(path)
    if not isinstance(fields, dict):
        raise UserError(f"{path}: expected an object with fields, found {type(fields).__name__}; copy it again")
    return fields


def _misfit(model: Path, adapter: dict[str, Any]) -> str | None:
    """Describe the first LoRA matrix that does not fit the base's weight of the same module; None if all fit."""
    base: dict[str, list[int]] = {}
    for path in weight_files(model):
        for name, entry in header(path).items():
            base[name] = entry["shape"]
    compared = 0
    for name, entry in sorted(adapter.items()):
        module, _, part = name.removeprefix("base_model.model.").partition(".lora_")
        weight = base.get(f"{module}.weight")
        if weight is None or part not in ("A.weight", "B.weight"):
            continue
        compared += 1
        # A is (rank, inputs) and B is (outputs, rank). GPT-2 stores its weights transposed, so either side may match.
        size = entry["shape"][1] if part == "A.weight" else entry["shape"][0]
        if size not in weight:
            return f"{module} is {' x '.join(map(str, weight))}, the adapter expects {size}"
    return None if compared else "none of its modules is in the model"


def _config_content(path: Path) -> str:
    """Text of a config file without the fields that do not change the model: paths and library versions."""
    if path.suffix != ".json" or path.name == "tokenizer.json":
        return path.read_text(encoding="utf-8", errors="backslashreplace")
    content = {key: value for key, value in _fields(path).items() if key not in _NOT_CONTENT}
    # PEFT writes a set here, in another order each time.
    if isinstance(content.get("target_modules"), list):
        content["target_modules"] = sorted(content["target_modules"])
    return json.dumps(content, sort_keys=True)
