"""Train inside a larger program, and restore the global state that training changes.

A process that only serves one run begins with `freeze_imports`.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import random
import sys
import warnings
from collections.abc import Iterator

import numpy as np
import peft  # noqa: F401 - for `freeze_imports`
import torch
import transformers

from debate_rl.engines.memory import free_memory


@functools.cache
def freeze_imports() -> None:
    """Exclude all imported libraries from garbage collection; call it before a model is loaded.

    Every training collects twice, and each time would walk the libraries' half a million objects.
    """
    gc.freeze()


@contextlib.contextmanager
def kept_global_state() -> Iterator[None]:
    """Restore random streams, default type, threads, determinism, log level and environment, and free the models."""
    python_stream = random.getstate()
    numpy_stream = np.random.get_state()
    torch_stream = torch.get_rng_state()
    cuda_streams = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    dtype = torch.get_default_dtype()
    threads = torch.get_num_threads()
    deterministic = torch.get_deterministic_debug_mode()
    cudnn = torch.backends.cudnn.benchmark
    level = transformers.logging.get_verbosity()
    environment = dict(os.environ)
    bars = transformers.logging.is_progress_bar_enabled()
    if not sys.stderr.isatty():
        transformers.logging.disable_progress_bar()
    if not torch.accelerator.is_available():
        # Accelerate imports DeepSpeed where it is installed, which would print that it found no GPU.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        with warnings.catch_warnings():
            # TRL sets fields of TrainingArguments that transformers renames: nothing a user could mend.
            warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
            yield
    finally:
        random.setstate(python_stream)
        np.random.set_state(numpy_stream)
        torch.set_rng_state(torch_stream)
        if cuda_streams:
            torch.cuda.set_rng_state_all(cuda_streams)
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(deterministic)
        torch.backends.cudnn.benchmark = cudnn
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()
        # accelerate tells its settings through the environment, where the next training would find them.
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)
        free_memory()  # a Trainer and its model refer to each other, so counting references does not free them
