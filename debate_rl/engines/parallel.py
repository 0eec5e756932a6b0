"""Parts of a call answered side by side, each of them in the store as soon as it is answered.

In front of a store stands a `Parallel` where the engine behind it answers many requests at a time: a server, or the
processes of a crew. A call is cut into parts, and each part goes through the store by itself. So a crash, a budget that
is spent or a server that is gone loses what is under way, and nothing that was answered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from threading import Lock, Thread
from time import monotonic
from typing import Protocol, TypeVar

from debate_rl.engines.request import Choice, Completion, Engine, EngineFailure, Request, Scores

P = TypeVar("P")
R = TypeVar("R")
Q = TypeVar("Q", Request, Choice)
A = TypeVar("A", Completion, Scores)

LAST_WORDS = 1.0
"""Seconds that parts under way have after Ctrl-C; a server that hangs must not hold the user up."""
Parts = list[list[list[int]]]
"""For each lane the parts that are its own, each a list of places in the call."""


class Lanes(Protocol):
    """An engine that answers several parts of a call at a time."""

    def plan(self, questions: Sequence[Request] | Sequence[Choice]) -> Parts:
        """Cut a call into parts, and say which lane each is for."""
        ...

    def enter(self, lane: int) -> None:
        """Tell the engine that this thread asks for a lane from now on."""
        ...


class Parallel:
    """An engine that hands the parts of each call to another one from several threads.

    Args:
        stored: the engine with its store in front; it is asked by several threads at a time.
        lanes: how calls are cut: the engine behind the store.
    """

    def __init__(self, stored: Engine, lanes: Lanes) -> None:
        self.stored = stored
        self.lanes = lanes

    def generate(self, requests: Sequence[Request]) -> list[Completion | EngineFailure]:
        """Write a text for each request.

        Raises:
            UserError: a part can not be answered at all; the other parts under way are finished first, and kept.
        """
        return self._all(requests, self.stored.generate)

    def choose(self, choices: Sequence[Choice]) -> list[Scores | EngineFailure]:
        """Score the candidates of each choice.

        Raises:
            UserError: as for `generate`.
        """
        return self._all(choices, self.stored.choose)

    def revision(self, model: str, adapter: str | None) -> str:
        """Fingerprint of a model with its adapter."""
        return self.stored.revision(model, adapter)

    def _all(
        self, questions: Sequence[Q], ask: Callable[[Sequence[Q]], list[A | EngineFailure]]
    ) -> list[A | EngineFailure]:
        answers: dict[int, A | EngineFailure] = {}

        def work(part: list[int]) -> None:
            answers.update(zip(part, ask([questions[at] for at in part]), strict=True))

        side_by_side(self.lanes.plan(questions), work, self.lanes.enter)
        return [answers[at] for at in range(len(questions))]


def side_by_side(
    parts: Sequence[Sequence[P]], work: Callable[[P], None], enter: Callable[[int], None] = lambda lane: None
) -> None:
    """Do all parts, each lane its own in order, then what the others have left; lane 0 is the calling thread.

    After an exception no further part is begun; those under way are finished, then the first exception is raised. After
    Ctrl-C they have `LAST_WORDS` seconds.

    Args:
        parts: of each lane; a lane without any helps the others.
        work: does a part.
        enter: called in the thread of each lane before anything else.
    """
    queues = [deque(own) for own in parts]
    errors: list[BaseException] = []
    lock = Lock()

    def take(lane: int) -> list[P]:
        with lock:
            longest = max(queues, key=len)
            queue = queues[lane] or longest
            if errors or not queue:
                return []
            # Another's part is taken from the end, where it would come to it last.
            return [queue.popleft() if queue is queues[lane] else queue.pop()]

    def go(lane: int) -> None:
        try:
            enter(lane)
            while taken := take(lane):
                work(taken[0])
        except KeyboardInterrupt:
            # Raised at once: the other threads may wait for a server that hangs, and end with the process.
            errors.append(KeyboardInterrupt())
            raise
        except BaseException as error:  # raised below, in the caller's thread
            with lock:
                errors.append(error)

    if sum(map(len, queues)) == 1:
        go(next(lane for lane, queue in enumerate(queues) if queue))  # nothing to share: no threads
        queues = []
    threads = [Thread(target=go, args=(lane,), daemon=True) for lane in range(1, len(queues))]
    for thread in threads:
        thread.start()
    try:
        if queues:
            go(0)
        stopped = next((error for error in errors if not isinstance(error, Exception)), None)
        if stopped is not None:
            raise stopped
        for thread in threads:
            thread.join()
    except BaseException as error:  # Ctrl-C, which comes to this thread alone
        with lock:
            errors.append(error)  # no further part is begun
        end = monotonic() + LAST_WORDS
        for thread in threads:
            thread.join(max(0.0, end - monotonic()))
        raise
    if errors:
        raise errors[0]
