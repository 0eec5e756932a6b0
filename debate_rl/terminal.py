"""What a command shows while it works, and what it says when it is stopped.

Whatever a command is at, it is silent for no more than `SILENCE` seconds: a thread says what goes on. On a terminal
that is one line at the bottom, painted again every second; in a log it is a line now and then. Both go to stderr, so
that what a command prints (a table, JSON) can be piped.

SIGINT (Ctrl-C) and SIGTERM raise `KeyboardInterrupt` where the command is at work. Where that can not end it, as in a
library's loop or while a server hangs, the process ends itself after `GRACE` seconds: what is finished was written by
then, as a run survives even a kill at any moment.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TextIO

FIRST = 0.5
"""Seconds after which a command that has said nothing says that it is at work."""
SILENCE = 8.0
"""Seconds without a word in a log until it gets a line about what goes on."""
GRACE = 0.8
"""Seconds that a stopped command has to end by itself."""
STOPPED = 130
"""Exit code of a stopped command."""
STAGE_VARIABLE = "DEBATE_RL_STAGE"
"""Environment variable that tells a launched training which stage it belongs to."""

State = Callable[[], str]
"""Says how far something is."""


@dataclass
class _Activity:
    """Something that goes on, such as `loading lab-base`, and since when."""

    name: str
    began: float = field(default_factory=time.monotonic)

    def __str__(self) -> str:
        """Its name, and for how long it has gone on."""
        return f"{self.name}, {duration(time.monotonic() - self.began)}"


class _Display:
    """The one display of this process: its stage, what goes on, when it last said something."""

    def __init__(self) -> None:
        self.command = "debate-rl"
        self.stage = os.environ.get(STAGE_VARIABLE, "")
        self.kept: State | None = None
        self.progress: State | None = None
        self.reached: State | None = None
        self.stopping = False
        self.activities: list[_Activity] = []
        self.began = self.last = time.monotonic()
        """When the stage began, and when something was said."""
        self.live = False
        self.spoke = False
        self.painted = False
        self.quiet = 0
        self.ends_line = True
        self.lock = threading.RLock()

    def text(self) -> str:
        """What goes on now, in one line."""
        activities = list(self.activities)
        said = str(activities[-1]) if activities else ""
        if not said and self.progress is not None:
            said = self.progress()
        said = said or f"at work, {duration(time.monotonic() - self.began)}"
        return f"{self.stage}: {said}" if self.stage else said


_display = _Display()


_ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "TQDM_DISABLE": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "WANDB_SILENT": "true",
}
_LOGGERS = ("bitsandbytes.backends.cpu.ops", "DeepSpeed", "accelerate", "torch.distributed.elastic")
"""Loggers whose warnings are about what a library chose by itself, which who runs a command can not change."""


def hush() -> None:
    """Silence what libraries say that is of no use to who runs a command; their errors are still shown.

    Call it before they are imported: some read the environment once.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for logger in _LOGGERS:
        logging.getLogger(logger).addFilter(_is_error)
    # One library tells another what it will rename.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.|peft\.")


def _is_error(record: logging.LogRecord) -> bool:
    """Whether a line of a log is about an error."""
    return record.levelno >= logging.ERROR


def stage(label: str) -> None:
    """Name the stage at work, such as `[3/9] dpo`; it stands before all that is shown."""
    _display.stage, _display.began = label, time.monotonic()
    progress(None)


def stage_label() -> str:
    """The stage at work, empty where there is none."""
    return _display.stage


def progress(state: State | None, reached: State | None = None) -> None:
    """Say how far the stage at work is, from now on.

    Args:
        state: how far it is, such as `875 of 1,500 debates, 0 failed, 8 s left`.
        reached: what of it is kept if it is stopped now, such as `875 of 1,500 debates`.
    """
    _display.progress, _display.reached = state, reached


def keeps(words: State | None) -> None:
    """Say what is kept if the command is stopped now, such as `6 of 9 stages are kept in runs/quickstart`."""
    _display.kept = words


def is_live() -> bool:
    """Whether a line at the bottom of a terminal says what goes on, so that a log of it is not needed."""
    return _display.live


@contextlib.contextmanager
def doing(name: str) -> Iterator[None]:
    """While something goes on, such as `loading lab-base`, say so now and then."""
    activity = _Activity(name)
    _display.activities.append(activity)
    try:
        yield
    finally:
        _display.activities.remove(activity)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Show nothing for a while: something else writes to the terminal, such as a prompt or another process."""
    with _display.lock:
        _wipe()
        _display.quiet += 1
    try:
        yield
    finally:
        _display.quiet -= 1
        _display.last = time.monotonic()


@contextlib.contextmanager
def shown(command: str, live: bool = True, prefix: str = "") -> Iterator[None]:
    """Show what goes on until this ends.

    Args:
        command: what the process does, such as `run`.
        live: keep a line at the bottom of a terminal; else lines are added as to a log.
        prefix: stands before these lines, where several processes write to one log.
    """
    before, terminal = (sys.stdout, sys.stderr), sys.stderr
    noted: tuple[Any, Any] = _Noted(before[0]), _Noted(before[1])
    sys.stdout, sys.stderr = noted
    _display.command, _display.spoke, _display.ends_line = command, False, True
    _display.began = _display.last = time.monotonic()
    _display.live = live and terminal.isatty() and os.environ.get("TERM") != "dumb"
    ended = threading.Event()
    keeper = threading.Thread(target=_keep_showing, args=(terminal, prefix, ended), daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
        with _display.lock:
            _wipe()
            _display.live = False
        if sys.stdout is noted[0]:  # else the reader of a pipe has gone, and what stands there now keeps still
            sys.stdout = before[0]
        if sys.stderr is noted[1]:
            sys.stderr = before[1]


class _Noted:
    """A stream that takes note of what is written to it, and first wipes the line at the bottom away."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write after the line at the bottom was wiped away."""
        with _display.lock:
            _wipe()
            _display.last, _display.spoke = time.monotonic(), True
            _display.ends_line = text.endswith("\n") if text else _display.ends_line
            written = self._stream.write(text)
            if "\n" in text:
                self._stream.flush()  # into a pipe as well: who reads a log wants to see the line now
            return written

    def writelines(self, lines: Any) -> None:
        """Write each line."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the stream's own."""
        return getattr(self._stream, name)


def _keep_showing(terminal: TextIO, prefix: str, ended: threading.Event) -> None:
    """Paint what goes on every second, or add a line where nothing was said for long, until the command ends."""
    paint = _display.live
    while not ended.wait(0.1 if not _display.spoke else 0.5):
        with _display.lock:
            if _display.quiet or _display.stopping:
                continue
            silence = time.monotonic() - _display.last
            wait = (1.0 if paint else SILENCE) if _display.spoke else FIRST
            if silence < wait or (paint and not _display.ends_line):
                continue
            if paint:
                _paint(terminal)
            else:
                said = _display.text() if _display.spoke else f"{_display.command}: starting"
                terminal.write(f"{prefix}  {said}\n")
                terminal.flush()
                _display.last = time.monotonic()
            _display.spoke = True


def _paint(terminal: TextIO) -> None:
    """Put what goes on at the bottom of the terminal, in place of what stood there."""
    width = shutil.get_terminal_size().columns - 1
    with contextlib.suppress(OSError, ValueError):
        terminal.write(f"\r\x1b[K{_display.text()[:width]}")
        terminal.flush()
    _display.painted = True


def _wipe() -> None:
    """Take away the line at the bottom."""
    if not _display.painted:
        return
    _display.painted = False
    stream = getattr(sys.stderr, "_stream", sys.stderr)
    with contextlib.suppress(OSError, ValueError):
        stream.write("\r\x1b[K")
        stream.flush()


def duration(seconds: float) -> str:
    """Seconds in words.

    Example:
        >>> duration(80), duration(3900)
        ('1 min 20 s', '1 h 5 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGINT and SIGTERM stop what goes on, within `GRACE` seconds whatever it is.

    Python runs a signal's handler between two steps of the main thread, which may be far apart. So a second thread
    is woken by the signal itself, and ends the process where the main thread does not.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    handlers = {name: signal.signal(name, _interrupt) for name in (signal.SIGINT, signal.SIGTERM)}
    wakeup = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    hooks = sys.unraisablehook, threading.excepthook
    sys.unraisablehook = _quiet_hook(hooks[0])
    threading.excepthook = _quiet_hook(hooks[1])
    threading.Thread(target=_end_when_woken, args=(receiver,), daemon=True).start()
    try:
        yield
    finally:
        if not _display.stopping:  # a command that is being stopped is still watched while it ends
            signal.set_wakeup_fd(wakeup)
            for name, handler in handlers.items():
                signal.signal(name, handler)
            sys.unraisablehook, threading.excepthook = hooks
            sender.close()


def _interrupt(number: int, frame: Any) -> None:
    """Stop the main thread; a second signal does not stop it from tidying up."""
    if not _display.stopping:
        _display.stopping = True
        raise KeyboardInterrupt


def _quiet_hook(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A hook that reports no error of a process that was told to stop."""
    return lambda error: None if _display.stopping else hook(error)


def _end_when_woken(receiver: socket.socket) -> None:
    """Wait for SIGINT or SIGTERM, then end the process unless it ends by itself."""
    stopping = {signal.SIGINT, signal.SIGTERM}
    with receiver:
        while got := receiver.recv(1):
            if got[0] in stopping:
                time.sleep(GRACE)
                end_stopped()


def interrupted() -> bool:
    """Whether the process was told to stop."""
    return _display.stopping


_said = threading.Lock()


def end_stopped() -> None:
    """Say what is kept, end the processes that this one started, and end it; waits for nothing."""
    say_stopped()
    end_children()
    os._exit(STOPPED)


def say_stopped() -> None:
    """Say once what is kept and how to go on."""
    _display.stopping = True
    if not _said.acquire(blocking=False) or os.environ.get("RANK", "0") != "0":
        return
    where = f" in {_display.stage}" if _display.stage else ""
    kept = _display.kept() if _display.kept is not None else "what was finished before is kept"
    reached = _display.reached() if _display.reached is not None else ""
    detail = f", and of this stage {reached}" if reached else ""
    again = shlex.join(["debate-rl", *sys.argv[1:]])
    lines = f"debate-rl: stopped{where}; {kept}{detail}\ndebate-rl: to go on: {again}\n"
    stream = getattr(sys.stderr, "_stream", sys.stderr)  # past the lock, which a blocked write may hold
    with contextlib.suppress(OSError, ValueError):
        stream.write(("\r\x1b[K" if _display.painted else "") + lines)
        stream.flush()


def end_children() -> None:
    """End the processes that this one started, and those that they started: seeds of a study, launched trainings."""
    import psutil

    with contextlib.suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                # W&B's process ends by itself, once it has written what it was told; so does Python's own.
                if not any(name in word for word in child.cmdline() for name in ("wandb", "resource_tracker")):
                    child.kill()


@contextlib.contextmanager
def unstoppable() -> Iterator[None]:
    """Start processes that Ctrl-C at the terminal does not reach: the one that started them ends them."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
