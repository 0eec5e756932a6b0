"""Training inside a larger program: the global state it changes is put back.

A process that is a run's alone begins with `freeze_imports`.
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


@functools.cache
def freeze_imports() -> None:
    """Take what is imported out of garbage collection, before there is a model: collections are two for every training,
    and the libraries have half a million objects to walk.
    """
    gc.freeze()


@contextlib.contextmanager
def kept_global_state() -> Iterator[None]:
    """Put back random streams, default type, threads, determinism, log level and environment, and free the models."""
    streams = random.getstate(), np.random.get_state(), torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    exact, cudnn = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    level = transformers.logging.get_verbosity()
    environment = dict(os.environ)
    bars = transformers.logging.is_progress_bar_enabled()
    if not sys.stderr.isatty():
        transformers.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # TRL sets fields of TrainingArguments that transformers renames: nothing a user could mend.
            warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
            yield
    finally:
        random.setstate(streams[0])
        np.random.set_state(streams[1])
        torch.set_rng_state(streams[2])
        if devices:
            torch.cuda.set_rng_state_all(devices)
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(exact)
        torch.backends.cudnn.benchmark = cudnn
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)
        gc.collect()  # a Trainer and its model hold each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
