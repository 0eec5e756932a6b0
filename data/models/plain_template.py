"""A plain chat template for base models, which have none: the parts of a prompt under `User:` and `Assistant:`.

The model's own folder is not changed. A folder of links to its files gets the template beside them, so the engine,
trainings and other processes all see one model with a template, and its fingerprint tells it from the bare one.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import shutil
from functools import cache
from pathlib import Path

from debate_rl.data.models.library import cache_folder
from debate_rl.engines.load import load_tokenizer
from debate_rl.errors import UserError
from debate_rl.records import digest, read_json

_log = logging.getLogger(__name__)

TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'user' %}{{ 'User:\\n' + message.content + '\\n\\n' }}"
    "{% elif message.role == 'assistant' %}{{ 'Assistant:\\n' + message.content }}{{ eos_token }}{{ '\\n\\n' }}"
    "{% else %}{{ message.content + '\\n\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:\\n' }}{% endif %}"
)
"""Labels stand on lines of their own: after a colon and a space, letters and answers would be other tokens than they
are at the start of a line. A turn ends with the end-of-sequence token, which training teaches."""
MARKS = ("User:", "Assistant:")
"""Lines by which it opens a turn. Base models seldom write the end-of-sequence token: they go on with the next turn,
where their texts are cut."""
_FILE = "chat_template.jinja"


def with_plain_template(model: str) -> str:
    """Path of a model with a chat template: its own folder if it has one, else one that adds a plain template.

    Args:
        model: folder or hub name; an adapter, or a name that is neither, is returned as it is.

    Raises:
        UserError: a hub model is not in the hub's cache, or a tokenizer can not be read.
    """
    source = _folder(model)
    if source is None or not (source / "config.json").is_file() or has_template(source):
        return model
    tokenizer_file = source / "tokenizer.json"
    changed = tokenizer_file.stat().st_mtime_ns if tokenizer_file.is_file() else 0
    folder = cache_folder() / "plain" / f"{source.name}-{digest([str(source), changed, TEMPLATE])[:8]}"
    files = {path.name: path for path in source.iterdir() if path.is_file()}
    if not (folder.is_dir() and _is_current(folder, files)):
        _build(folder, source, files)
    _say_once(model)
    return str(folder)


def _folder(model: str) -> Path | None:
    """Folder of a model, of a hub model the one in the hub's cache; None if the name is neither.

    Raises:
        UserError: a hub model is not there. Plans and dry runs look as well, and these fetch nothing.
    """
    path = Path(model)
    if path.is_dir():
        return path.resolve()
    if path.exists() or model.count("/") != 1 or model.startswith((".", "~", "/")):
        return None
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, local_files_only=True)).resolve()
    except (OSError, ValueError) as error:
        raise UserError(
            f"models.template: plain has to read the tokenizer of {model}, which is not in the hub's cache; "
            f"fetch it first: hf download {model}"
        ) from error


@cache
def _say_once(model: str) -> None:
    """Say that a model got the plain template, once, and not again in the worker processes of a run."""
    if multiprocessing.parent_process() is None:
        _log.warning("%s has no chat template; models.template: plain gives it a plain one", model)


def has_template(folder: Path) -> bool:
    """Whether a model's folder holds a chat template, in any of the files that transformers reads it from."""
    if any((folder / name).exists() for name in (_FILE, "chat_template.json", "additional_chat_templates")):
        return True
    config = folder / "tokenizer_config.json"
    return config.is_file() and bool(read_json(config).get("chat_template"))


def _is_current(folder: Path, files: dict[str, Path]) -> bool:
    """Whether a folder of links still shows the files of its model."""
    names = {path.name for path in folder.iterdir() if path.exists()}
    return names == {*files, _FILE}


def _build(folder: Path, source: Path, files: dict[str, Path]) -> None:
    """Link a model's files into a folder and add the template; other processes may do the same at this moment."""
    tokenizer = load_tokenizer(source)
    text = TEMPLATE
    # Prompts are encoded without special tokens, and Gemma writes nonsense without its first one. SmolLM2 has such a
    # token too and does not begin with it, so the tokenizer itself is asked.
    begins = tokenizer("x")["input_ids"][:1]
    if tokenizer.bos_token_id is not None and begins == [tokenizer.bos_token_id]:
        text = "{{ bos_token }}" + text
    partial = folder.parent / f".{folder.name}.{os.getpid()}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, path in files.items():
        (partial / name).symlink_to(path)
    (partial / _FILE).write_text(text, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # another process was first
        partial.rename(folder)
    shutil.rmtree(partial, ignore_errors=True)
