"""Convert GGUF files into model folders of transformers: safetensors in float32 with the tokenizer.

A GGUF file is a header, metadata (keys with typed values), a list of tensors, and their data; all little endian. The
head is read here without loading anything, so that a wrong file is refused before memory and disk are used:

    "GGUF" | version u32 | tensors u64 | keys u64 | keys: (text, type u32, value) | tensors: (text, dims, type, offset)
"""

from __future__ import annotations

import math
import os
import shutil
import struct
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

from debate_rl.errors import UserError, existing

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Struct codes of the metadata's types."""
_STRING, _ARRAY = 8, 9
_ALIGNMENT = 32
_FLOAT_BYTES = 4
_WORK_MEMORY = 1.5
"""Peak memory of a conversion in sizes of the float32 model, measured with SmolLM2-135M (1.4)."""


@dataclass(frozen=True)
class GgufHead:
    """What the head of a GGUF file says."""

    architecture: str
    parameters: int
    tensors: tuple[tuple[int, int, int], ...]
    """Of each tensor: number of values, type, and offset of its data from `data`."""
    data: int
    """Where the data begins, in bytes."""


def require_gguf() -> None:
    """Make sure that the package `gguf` is there, with which transformers reads GGUF files.

    Raises:
        UserError: it is not installed.
    """
    if find_spec("gguf") is None:
        raise UserError("reading GGUF files needs the package gguf; install it: pip install 'debate-rl[library]'")


def make_folder(folder: Path) -> None:
    """Make a folder for models, with those above it.

    Raises:
        UserError: it can not be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the folder {folder} ({error.strerror}); set DEBATE_RL_MODELS, or --out, to another one"
        ) from error


def check_disk(folder: Path, needed: int, what: str) -> None:
    """Make sure that a disk has room.

    Args:
        folder: a folder on the disk.
        needed: bytes.
        what: what needs the room, for the message.

    Raises:
        UserError: it has not.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{what} needs {needed / 1e9:.1f} GB in {folder}, which has {free / 1e9:.1f} GB free; "
            "make room, or set DEBATE_RL_MODELS (models convert: --out) to another disk"
        )


def read_head(path: Path) -> GgufHead:
    """Read the head of a GGUF file.

    Raises:
        UserError: it is no GGUF file, or its head is cut off.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise UserError(f"{path} is no GGUF file; give one, such as model.Q4_K_M.gguf")
            _, tensors, keys = struct.unpack("<IQQ", _exactly(file, 20))
            metadata = {}
            for _ in range(keys):
                key = _text(file)
                metadata[key] = _value(file, _number(file, "I"))
            shapes = [_tensor(file) for _ in range(tensors)]
            end = file.tell()
    except (EOFError, KeyError, UnicodeDecodeError, OverflowError, MemoryError) as error:
        raise UserError(f"{path}: the GGUF file is cut off or damaged; download it again") from error
    alignment = int(metadata.get("general.alignment") or _ALIGNMENT)
    return GgufHead(
        architecture=str(metadata.get("general.architecture", "unknown")),
        parameters=sum(count for count, _, _ in shapes),
        tensors=tuple(shapes),
        data=-(-end // alignment) * alignment,
    )


def convert(gguf: str | Path, out: str | Path) -> Path:
    """Save a GGUF file as a folder of transformers.

    The folder is written beside its final name and renamed when it is whole.

    Args:
        gguf: the file, of any architecture that transformers reads.
        out: the folder, which must not exist.

    Returns:
        The folder.

    Raises:
        UserError: the file is missing, no GGUF, cut off or of an unknown architecture; the folder exists; disk or
            memory are too small; or the package `gguf` is not installed.
    """
    gguf, out = existing(gguf, "GGUF file").resolve(), Path(out)
    if gguf.is_dir():
        raise UserError(f"{gguf} is a folder; give a GGUF file in it")
    if out.exists():
        raise UserError(f"{out} exists; choose another folder with --out")
    head = read_head(gguf)
    require_gguf()
    _check_size(gguf, head)
    make_folder(out.parent)
    needed = _FLOAT_BYTES * head.parameters
    check_disk(out.parent, needed, f"converting {gguf.name}")
    _check_memory(gguf, int(_WORK_MEMORY * needed))
    partial = out.parent / f".{out.name}.{os.getpid()}.partial"
    try:
        _save(gguf, head.architecture, partial)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def _save(gguf: Path, architecture: str, out: Path) -> None:
    """Load a GGUF file with transformers and save model and tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    # Its bars go to the terminal of who only wants a model.
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    options: dict[str, Any] = {"gguf_file": gguf.name, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **options)
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **options)
        # What was read from GGUF is marked as quantised, which transformers refuses to save; the weights are plain now.
        for owner in (model, model.config):
            for name in ("quantization_config", "hf_quantizer", "is_quantized", "_is_quantized"):
                vars(owner).pop(name, None)
        model.hf_quantizer = None
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
    except (ValueError, KeyError, TypeError, AttributeError, NotImplementedError, ImportError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{gguf.name}: transformers can not read this GGUF of architecture {architecture!r} ({reason[:160]}); "
            "take the model's safetensors from the hub, or another model"
        ) from error
    finally:
        if bars:
            logging.enable_progress_bar()


def _check_size(gguf: Path, head: GgufHead) -> None:
    """Refuse a file that ends before its tensors do."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    end = head.data
    for values, kind, offset in head.tensors:
        try:
            block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        except (ValueError, KeyError) as error:
            raise UserError(f"{gguf.name}: tensors of GGUF type {kind} are unknown to the package gguf") from error
        end = max(end, head.data + offset + values // block * size)
    if gguf.stat().st_size < end:
        raise UserError(
            f"{gguf}: the GGUF file is cut off ({gguf.stat().st_size:,} of {end:,} bytes); download it again"
        )


def _check_memory(gguf: Path, needed: int) -> None:
    """Refuse a model whose conversion would not fit into memory, before the system kills the process."""
    import psutil

    free = psutil.virtual_memory().available
    if free < needed:
        raise UserError(
            f"converting {gguf.name} needs about {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free; "
            "choose a smaller model, or convert it on another machine"
        )


def _exactly(file: BinaryIO, size: int) -> bytes:
    """So many bytes of a file.

    Raises:
        EOFError: it ends before.
    """
    data = file.read(size)
    if len(data) != size:
        raise EOFError("cut off")
    return data


def _number(file: BinaryIO, code: str) -> Any:
    """The next number, by its struct code."""
    return struct.unpack(f"<{code}", _exactly(file, struct.calcsize(f"<{code}")))[0]


def _text(file: BinaryIO) -> str:
    """The next text: its length, then UTF-8."""
    return _exactly(file, _number(file, "Q")).decode()


def _value(file: BinaryIO, kind: int) -> Any:
    """The next value of metadata; of arrays, such as the vocabulary, only the place is passed."""
    if kind == _STRING:
        return _text(file)
    if kind != _ARRAY:
        return _number(file, _SCALARS[kind])
    inner, count = struct.unpack("<IQ", _exactly(file, 12))
    if inner in (_STRING, _ARRAY):
        for _ in range(count):
            _value(file, inner)
    else:
        file.seek(count * struct.calcsize(f"<{_SCALARS[inner]}"), os.SEEK_CUR)
    return None


def _tensor(file: BinaryIO) -> tuple[int, int, int]:
    """The next tensor's number of values, type and offset."""
    _text(file)
    dimensions = [_number(file, "Q") for _ in range(_number(file, "I"))]
    kind, offset = struct.unpack("<IQ", _exactly(file, 12))
    return math.prod(dimensions), kind, offset
