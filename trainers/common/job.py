"""Run a training job, rows in and adapter out, in this process or through `accelerate launch`.

A killed job resumes from its last whole checkpoint and ends with the same adapter. Whatever has a final name
(`adapter/` or `model/`, `history.json`, `result.json`) is complete. As a program:

    accelerate launch --config_file configs/accelerate/zero3.yaml -m debate_rl.trainers.common.job job.json
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from debate_rl.engines.weights import BASE_FILE, fingerprint, write_sums
from debate_rl.errors import UserError, existing
from debate_rl.game import run_files
from debate_rl.judges.callables import unnamed_functions
from debate_rl.records import digest, explain, locked, read_json, read_yaml, write_json, write_text
from debate_rl.trainers.common.checkpoints import remove_partial_checkpoints
from debate_rl.trainers.common.memory import check_spread, half_on_cpu, machine, refuse
from debate_rl.trainers.common.model_shapes import shape_of
from debate_rl.trainers.common.settings import Job, Result
from debate_rl.trainers.grpo.judge_settings import judging_content
from debate_rl.trainers.grpo.settings import content

if TYPE_CHECKING:
    from debate_rl.trainers.common.build_trainer import Prepared
    from debate_rl.trainers.common.memory import Training

_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_FULL_DISK = 32 << 20
"""Free bytes below which a failed write is blamed on a full disk."""
PATIENCE = 10.0
"""Seconds to wait for another training in a job's folder; one whose run was killed ends within that time."""
_PARENT = "DEBATE_RL_LAUNCHED_BY"
"""Environment variable that tells a launched training which process launched it (see `_process_mark`)."""


def run_job(job: Job, callbacks: Sequence[Any] = (), quiet: bool = False) -> Result:
    """Train in this process, from the last whole checkpoint if there is one.

    A job that is already finished (same job, same rows, same models) returns its result at once.

    Args:
        job: the job.
        callbacks: transformers TrainerCallbacks, such as those that track losses.
        quiet: do not print losses.

    Raises:
        UserError: the settings, rows or models are not usable, the folder holds another job, the loss is not a number,
            or the disk is full.
    """
    name = job_name(job)
    result = finished(job, name)
    if result is not None:
        return result
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # TRL reports each trainer to the hub
    from debate_rl.trainers.common.state import kept_global_state

    with kept_global_state(), _disk_errors(Path(job.out)), _alone(Path(job.out)):
        return _train(job, name, callbacks, quiet)


def job_name(job: Job) -> str:
    """Name of a job by content: its settings, its rows and the weights it starts from, but not where they lie.

    Raises:
        UserError: rows, model or adapter are not there.
    """
    row_files = [job.rows]
    if job.eval_rows:
        row_files.append(job.eval_rows)
    rows = [hashlib.sha256(existing(path, "rows file").read_bytes()).hexdigest()[:16] for path in row_files]
    start = [job.model, job.adapter]
    if job.reference is not None:
        start += [job.reference.model, job.reference.adapter]
    weights = [fingerprint(path) for path in start if path]
    by_content = {"rows", "eval_rows", "out", "model", "adapter", "reference", "online", "judging"}
    parts = [job.model_dump(mode="json", exclude=by_content), rows, weights]
    if job.online is not None:
        parts.append(content(job.online))
    if job.judging is not None:
        parts.append(judging_content(job.judging))
    return digest(parts)


def finished(job: Job, name: str) -> Result | None:
    """The result that the job's folder holds, or None if it is still to be made.

    Raises:
        UserError: the folder holds another job, finished or begun.
    """
    out = Path(job.out)
    note = out / "job.json"
    if not note.is_file():
        return None
    begun = (out / "result.json").is_file() or any((out / "checkpoints").glob("checkpoint-*"))
    if begun and read_json(note).get("name") != name:
        raise UserError(f"{out} holds another training job; choose another folder, or remove it to train anew")
    if not (out / "result.json").is_file():
        return None
    result = Result.model_validate(read_json(out / "result.json"))
    # The folder may have been moved since it was written.
    return result.model_copy(update={"path": str(_final(job))})


def launch(
    job: Job,
    accelerate_config: str | None = None,
    processes: int | None = None,
    callbacks: Sequence[Any] = (),
    quiet: bool = False,
) -> Result:
    """Train in this process, or in processes that accelerate starts from a config file.

    Args:
        job: the job.
        accelerate_config: file for `accelerate launch`; None trains here.
        processes: number of processes, if it differs from the file's.
        callbacks: see `run_job`; used only when training in this process.
        quiet: as callbacks.

    Raises:
        UserError: see `run_job`; or the config file is missing, can not start so many processes, or a judge or reward
            is a function that they can not call.
        RuntimeError: a process failed for another reason; its output says which.
    """
    if accelerate_config is None:
        return run_job(job, callbacks, quiet)
    unnamed = unnamed_functions(job.model_dump(mode="json"))
    if unnamed:
        raise UserError(
            f"{unnamed[0]} is a function of this process, and launched ones can not call it; give its name as text "
            "(module:function), or train without launch"
        )
    result = finished(job, job_name(job))
    if result is not None:
        return result
    _check_launch(accelerate_config, processes)
    out = Path(job.out)
    job_file = out / "launch.json"
    # A user's mistake comes back through this file: accelerate's exit code does not tell it from a crash.
    error_file = out / "launch.error"
    write_json(job_file, job.model_dump(mode="json"))
    error_file.unlink(missing_ok=True)
    environment = {**os.environ, _PARENT: _process_mark(os.getpid())}
    code = subprocess.run(_command(accelerate_config, processes, job_file), env=environment).returncode
    if error_file.is_file():
        raise UserError(error_file.read_text(encoding="utf-8"))
    if code != 0:
        raise RuntimeError(f"training ended with exit code {code}; its output stands above")
    job_file.unlink()
    result = finished(job, job_name(job))
    if result is None:
        raise RuntimeError(f"training ended without {out / 'result.json'}; its output stands above")
    return result


def _check_launch(config: str, processes: int | None) -> None:
    """Make sure that as many processes start as are asked for, and that no two share a GPU.

    Raises:
        UserError: the config is for one process and more are asked for, or there are GPUs but too few.
    """
    import torch

    settings = read_yaml(config, "accelerate config")
    gpus = torch.cuda.device_count()
    count = processes or int(settings.get("num_processes") or 1)
    check_spread(config, settings, count)
    # Without a GPU processes train on the CPU; on several machines each sees only its own GPUs.
    if gpus and count > gpus and settings.get("num_machines", 1) == 1:
        raise UserError(
            f"{config}: {count} processes, and {gpus} GPUs; set hardware.cards {gpus}, or num_processes in the file"
        )


def _command(config: str, processes: int | None, job_file: Path) -> list[str]:
    """The command line of `accelerate launch`, on a free port if the config names none."""
    settings = read_yaml(config, "accelerate config")
    deepspeed = (settings.get("deepspeed_config") or {}).get("deepspeed_config_file")
    if deepspeed is not None and not Path(deepspeed).is_file():
        raise UserError(f"{config}: {deepspeed} not found; run from the repository's root or give an absolute path")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config]
    if processes is not None:
        command += ["--num_processes", str(processes)]
    if "main_process_port" not in settings and settings.get("num_machines", 1) == 1:
        # Port 0 takes a free one: accelerate's default is the same for two launches on one machine.
        command += ["--main_process_port", "0"]
    return [*command, "-m", "debate_rl.trainers.common.job", str(job_file)]


class Opened(NamedTuple):
    """A trainer that is ready to train."""

    trainer: Any
    prepared: Prepared
    training: Training | None
    """What its memory depends on; None where that is not estimated."""


def open_trainer(job: Job, callbacks: Sequence[Any] = (), quiet: bool = False) -> Opened:
    """Read a job's rows and build its trainer.

    Raises:
        UserError: see `run_job`; or the training needs more memory than is free.
    """
    from transformers import PrinterCallback, set_seed

    from debate_rl.trainers.common.arguments import training_arguments
    from debate_rl.trainers.common.build_trainer import build_trainer, prepare, training_of
    from debate_rl.trainers.common.history import LiveLog, LogBeforeSave, SumsAfterSave
    from debate_rl.trainers.common.load import load_tokenizer
    from debate_rl.trainers.grpo.groups import arguments_of, trl_arguments
    from debate_rl.trainers.grpo.judge_rollout import judge_arguments

    train = {"eval_strategy": "epoch", **job.train} if job.eval_rows else job.train
    of_job: dict[str, Any] = {}
    if job.online is not None:
        of_job = arguments_of(job.online, job.train)
    elif job.judging is not None:
        of_job = judge_arguments(job.judging, job.train)
    elif half_on_cpu(shape_of(job.model)):
        of_job["bf16"] = True
    train = trl_arguments(job.online, train)
    config = training_arguments(job.kind, train, Path(job.out) / "checkpoints", job.seed, of_job)
    _check_processes(config)
    tokenizer = load_tokenizer(job.model)
    prepared = prepare(job, tokenizer)
    training = training_of(job, prepared, config)
    if training is not None:
        refuse(training, machine(), f"training {job.kind}")
        of_job["gradient_checkpointing"] = training.checkpointing
        config = training_arguments(job.kind, train, Path(job.out) / "checkpoints", job.seed, of_job)
    set_seed(job.seed)  # a new adapter or head is drawn while the trainer is built
    logged = [LogBeforeSave(), SumsAfterSave(), LiveLog(), *callbacks]
    trainer = build_trainer(job, tokenizer, prepared, config, logged, None if training is None else training.part)
    if quiet:
        trainer.remove_callback(PrinterCallback)
    return Opened(trainer, prepared, training)


def _train(job: Job, name: str, callbacks: Sequence[Any], quiet: bool) -> Result:
    """Build the trainer, train, save."""
    from debate_rl.trainers.common.history import history, mean_loss
    from debate_rl.trainers.common.warning_signs import loss_signs

    out = Path(job.out)
    trainer, prepared, _ = open_trainer(job, callbacks, quiet)
    config = trainer.args
    # The first process removes partial checkpoints before the others look for whole ones.
    with config.main_process_first(desc="checkpoints"):
        checkpoint = remove_partial_checkpoints(out / "checkpoints")
    if config.process_index == 0:
        write_json(out / "job.json", {"name": name, "job": job.model_dump(mode="json")})
    started = time.monotonic()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    entries = history(trainer.state.log_history)
    loss = mean_loss(entries)
    path = _save(job, trainer, out)
    result = Result(
        kind=job.kind,
        path=str(path),
        base=fingerprint(job.model),
        rows=prepared.read,
        too_long=prepared.too_long,
        steps=trainer.state.global_step,
        loss=loss,
        warnings=loss_signs(entries, job.kind),
        seconds=time.monotonic() - started,
    )
    if config.process_index == 0:
        write_json(out / run_files.HISTORY, entries)
        # Last of the results, as it makes the job finished; the checkpoints are needed up to here.
        write_json(out / "result.json", result.model_dump(mode="json"))
        shutil.rmtree(out / "checkpoints", ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    return result


def _check_processes(config: Any) -> None:
    """Make sure that processes started together train together, and that one process uses one GPU."""
    started = int(os.environ.get("WORLD_SIZE", "1"))
    state = config.distributed_state
    if state.num_processes != started or (started > 1 and str(state.distributed_type).endswith("NO")):
        raise UserError(
            f"{started} processes were started but each would train alone; on CPU leave train.use_cpu true, "
            "or use a DeepSpeed config"
        )
    if os.environ.get("ACCELERATE_USE_FSDP") == "true" and config.use_cpu:
        raise UserError(
            "FSDP needs GPUs, of which there are none here: every process would hold the whole model; "
            "use configs/accelerate/multi_gpu.yaml or zero3.yaml"
        )
    if config.n_gpu > 1:
        raise UserError(
            f"{config.n_gpu} GPUs are visible to one process; use configs/accelerate/multi_gpu.yaml "
            "or show it one with CUDA_VISIBLE_DEVICES=0"
        )


def _save(job: Job, trainer: Any, out: Path) -> Path:
    """Save adapter or model under a temporary name, then rename it. All processes take part."""
    final = _final(job)
    partial = out / f".{final.name}.partial"
    if trainer.args.process_index == 0:
        shutil.rmtree(partial, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    # As an internal call it does not push to the hub.
    trainer.save_model(str(partial), _internal_call=True)
    trainer.accelerator.wait_for_everyone()
    if trainer.args.process_index == 0:
        _tidy(partial, adapter=job.lora is not None)
        write_json(partial / BASE_FILE, {"model": job.model, "fingerprint": fingerprint(job.model)})
        write_sums(partial)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
    return final


def _final(job: Job) -> Path:
    """Where the job's weights end up."""
    return Path(job.out) / ("model" if job.lora is None else "adapter")


def _tidy(folder: Path, adapter: bool) -> None:
    """Remove pickles and, beside an adapter, the copy of the reference and the tokenizer."""
    (folder / "training_args.bin").unlink(missing_ok=True)
    if not adapter:
        return
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in _ADAPTER_FILES:
            path.unlink()


@contextmanager
def _disk_errors(out: Path) -> Iterator[None]:
    """Turn an error on a full disk into one that says so."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # torch and safetensors raise errors of their own, not OSError, so the disk itself is asked.
        folder = next(path for path in [out, *out.resolve().parents] if path.is_dir())
        if shutil.disk_usage(folder).free > _FULL_DISK:
            raise
        reason = str(error).strip() or type(error).__name__
        raise UserError(
            f"no space left in {out} ({reason.splitlines()[0]}); free some and run again, it goes on from the last "
            "whole checkpoint"
        ) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job of a JSON file; a user's mistake is reported in one line, with exit code 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    _end_with_parent()
    out = None
    try:
        if len(arguments) != 1:
            raise UserError("usage: python -m debate_rl.trainers.common.job JOB.json")
        try:
            job = Job.model_validate(read_json(arguments[0]))
        except ValidationError as error:
            raise UserError(f"{arguments[0]}: {explain(error)}") from error
        out = Path(job.out)
        run_job(job)
    except UserError as error:
        # All processes fail alike; one report is enough.
        if os.environ.get("RANK", "0") == "0":
            print(f"error: {error}", file=sys.stderr)
            if out is not None:
                write_text(out / "launch.error", str(error))
        return 2
    finally:
        _leave_group()
    return 0


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Lock the job's folder, from the first of processes that train together.

    A training whose run was killed ends within a second (see `_end_with_parent`), so a new one waits for PATIENCE.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    busy = f"another training is at work in {out}; wait for it, or stop it"
    lock = out / ".training.lock"
    with locked(lock, busy, patience=PATIENCE):
        yield
        lock.unlink(missing_ok=True)


def _end_with_parent() -> None:
    """End this process when the run that launched it is gone, as after a SIGKILL.

    `accelerate launch` stands between the two processes and would go on by itself.
    """
    parent = os.environ.get(_PARENT)
    if parent is None:
        return

    def watch() -> None:
        while _is_alive(parent):
            time.sleep(0.5)
        # _exit, not an exception: the main thread may wait in a collective, where no exception reaches it.
        print("the run that launched this training is gone; it ends here and goes on with the run", file=sys.stderr)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _process_mark(pid: int) -> str:
    """A process as `number:start time`; the start time is empty on systems without /proc.

    The system reuses numbers, so the number alone could name another process.
    """
    try:
        # A program's name stands in brackets and may hold spaces: count fields after it. The 20th is the start time.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return f"{pid}:{fields[19]}"
    except (OSError, IndexError):
        return f"{pid}:"


def _is_alive(mark: str) -> bool:
    """Whether the process of a mark still runs."""
    pid = int(mark.partition(":")[0])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _process_mark(pid) == mark


def _leave_group() -> None:
    """Leave the group of processes, as torch asks a program to do before it ends."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
