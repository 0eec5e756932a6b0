"""Answer the parts of a call in parallel, each part through the store as soon as it is answered.

A `Parallel` stands in front of the store if the engine behind the store answers many requests at a time: a server, or
the worker processes of a run. It cuts a call into parts and sends each part through the store by itself. So a crash, a
spent budget or a lost server costs the requests under way, and nothing that was answered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from threading import Lock, Thread
from typing import Protocol, TypeVar

from debate_rl.engines.request import Choice, Completion, Engine, EngineFailure, Request, Scores, answer_distinct

P = TypeVar("P")
Q = TypeVar("Q", Request, Choice)
A = TypeVar("A", Completion, Scores)

Parts = list[list[list[int]]]
"""The parts of each lane; a part is a list of indexes into the call."""


class Lanes(Protocol):
    """An engine that answers several parts of a call at a time."""

    def plan(self, questions: Sequence[Request] | Sequence[Choice]) -> Parts:
        """Cut a call into parts and assign each part to a lane."""
        ...

    def enter(self, lane: int) -> None:
        """Bind the calling thread to a lane."""
        ...


class Parallel:
    """An engine that sends the parts of each call to another engine from several threads.

    Args:
        stored: the engine with its store in front; several threads call it at a time.
        lanes: the engine behind the store, which plans the parts.
    """

    def __init__(self, stored: Engine, lanes: Lanes) -> None:
        self.stored = stored
        self.lanes = lanes

    def generate(self, requests: Sequence[Request]) -> list[Completion | EngineFailure]:
        """Write a text for each request.

        Raises:
            UserError: a part can not be answered at all. The other parts under way are finished first, and stored.
        """
        return self._answer(requests, self.stored.generate)

    def choose(self, choices: Sequence[Choice]) -> list[Scores | EngineFailure]:
        """Score the candidates of each choice.

        Raises:
            UserError: as for `generate`.
        """
        return self._answer(choices, self.stored.choose)

    def revision(self, model: str, adapter: str | None) -> str:
        """Fingerprint of a model with its adapter."""
        return self.stored.revision(model, adapter)

    def _answer(
        self, questions: Sequence[Q], ask: Callable[[Sequence[Q]], list[A | EngineFailure]]
    ) -> list[A | EngineFailure]:
        def answer_parts(distinct: Sequence[Q]) -> list[A | EngineFailure]:
            answers: dict[int, A | EngineFailure] = {}

            def work(part: list[int]) -> None:
                answers.update(zip(part, ask([distinct[index] for index in part]), strict=True))

            side_by_side(self.lanes.plan(distinct), work, self.lanes.enter)
            return [answers[index] for index in range(len(distinct))]

        # Before the cut: two lanes that met the same request would both find the store empty and pay for it twice.
        return answer_distinct(questions, answer_parts)


def side_by_side(
    parts: Sequence[Sequence[P]], work: Callable[[P], None], enter: Callable[[int], None] = lambda lane: None
) -> None:
    """Work on the parts of all lanes in parallel, one thread per lane; lane 0 is the calling thread.

    Each lane takes its own parts in order, then helps the lane that has most left. After an exception no further part
    is begun; the parts under way are finished, then the first exception is raised.

    Args:
        parts: the parts of each lane; a lane without any helps the others.
        work: handles one part.
        enter: called in the thread of each lane before anything else.
    """
    queues = [deque(lane_parts) for lane_parts in parts]
    errors: list[BaseException] = []
    lock = Lock()

    def take(lane: int) -> list[P]:
        """The next part for a lane, in a list; empty if nothing is left."""
        with lock:
            if errors:
                return []
            if queues[lane]:
                return [queues[lane].popleft()]
            longest = max(queues, key=len)
            if not longest:
                return []
            # From the far end: what its own lane would come to last.
            return [longest.pop()]

    def run_lane(lane: int) -> None:
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

    busy_lanes = [lane for lane, queue in enumerate(queues) if queue]
    if sum(map(len, queues)) == 1:
        run_lane(busy_lanes[0])  # a single part needs no threads
    elif queues:
        threads = [Thread(target=run_lane, args=(lane,), daemon=True) for lane in range(1, len(queues))]
        for thread in threads:
            thread.start()
        run_lane(0)
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
