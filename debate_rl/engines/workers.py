"""Worker processes: ranks started together by `accelerate launch` or the like that answer the requests of one run.

Rank 0 runs the stages as a single process would, and writes all files. A call to its engine is cut into parts, which
all ranks answer in parallel. An answer depends on its request alone, so the run's files are the same for any number of
processes. Prompts with a common beginning go to the rank that has encoded it before.

From accelerate come the start and the roll-call (see `join`): `PartialState` opens the process group (gloo) and knows
this process's rank, `broadcast_object_list` sends every rank the address of rank 0, and `gather_object` waits until all
ranks have it. Requests then go over sockets instead of collectives: a collective hangs when a rank dies, whereas a
closed socket is noticed at once and the other ranks take over. Ranks other than 0 write nothing, and end with rank 0.
"""

from __future__ import annotations

import os
import secrets
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from itertools import pairwise
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

from debate_rl.engines.memory import free_memory
from debate_rl.engines.parallel import Parts
from debate_rl.engines.request import Choice, Completion, Engine, EngineFailure, Request, Scores
from debate_rl.engines.router import Router
from debate_rl.errors import UserError

PARTS_PER_RANK = 4
"""Parts of a call per rank, roughly. A rank that is done early takes over parts of others."""
LARGEST_PART = 256
"""Requests in a part at most: a rank that dies loses the work on one part."""
JOIN_TIMEOUT = 600
"""Seconds to wait for processes that were started together."""
_WRITE_COST = 4
"""Cost of one new token, in prompt characters."""
_LAUNCH_VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
)
_LAUNCH_PREFIXES = ("TORCHELASTIC_", "ACCELERATE_", "FSDP_", "ROLE_")

OpenEngine = Callable[[Any, int], Engine]
"""Opens a rank's engine from what rank 0 sent (the config) and the rank's number on its machine."""
Piece = tuple[float, list[int]]
"""Cost, and indexes of the questions."""


class _RankGone(Exception):
    """A rank does not answer any more."""


class Member:
    """Another rank, as rank 0 sees it.

    Args:
        rank: its number.
        connection: to its process.
    """

    def __init__(self, rank: int, connection: Connection) -> None:
        self.rank = rank
        self.answered = 0
        self._connection = connection

    def tell(self, order: str, value: Any = None) -> None:
        """Send an order that has no answer."""
        try:
            self._connection.send((order, value))
        except OSError as error:
            raise _RankGone from error

    def ask(self, order: str, questions: Sequence[Any]) -> list[Any]:
        """Send questions and wait for their answers.

        Raises:
            UserError: the rank's engine raised it.
            RuntimeError: the rank's engine raised something else.
        """
        self.tell(order, list(questions))
        try:
            kind, value = self._connection.recv()
        except (EOFError, OSError) as error:
            raise _RankGone from error
        if kind == "mistake":
            raise UserError(value)
        if kind == "error":
            raise RuntimeError(f"rank {self.rank}:\n{value}")
        self.answered += len(value)
        return list(value)


class Crew:
    """The other ranks, held by rank 0.

    Args:
        size: number of processes, rank 0 included.
        members: ranks that have connected; more may follow through `add`.
        say: prints a line about a lost rank.
    """

    def __init__(self, size: int, members: Sequence[Member] = (), say: Callable[[str], None] = print) -> None:
        self.size = size
        self.say = say
        self._members: dict[int, Member] = {member.rank: member for member in members}
        self._complete = threading.Event()
        self._lock = threading.Lock()
        if len(self._members) + 1 == size:
            self._complete.set()

    def add(self, member: Member) -> None:
        """Add a rank that has connected."""
        with self._lock:
            self._members[member.rank] = member
            if len(self._members) + 1 == self.size:
                self._complete.set()

    def member(self, rank: int) -> Member | None:
        """A connected rank; None for rank 0 and for lost ranks."""
        return self._members.get(rank)

    def lose(self, rank: int) -> None:
        """Go on without a rank."""
        with self._lock:
            lost = self._members.pop(rank, None)
        # Several threads may notice the same loss; one line is enough.
        if lost is not None:
            self.say(f"rank {rank} is gone; the others do its part")

    def tell(self, order: str, value: Any = None) -> None:
        """Send every rank an order that has no answer.

        Raises:
            UserError: not all ranks have connected in time.
        """
        if not self._complete.wait(JOIN_TIMEOUT):
            connected = len(self._members) + 1
            raise UserError(f"{connected} of {self.size} processes came within {JOIN_TIMEOUT} s; start them again")
        for rank, member in list(self._members.items()):
            try:
                member.tell(order, value)
            except _RankGone:
                self.lose(rank)


class _ThreadLane(threading.local):
    """The lane of each thread: the rank that it asks."""

    lane: int = 0


class CrewEngine:
    """The engine of a run with worker processes, to stand behind a store and a `Parallel`.

    Args:
        engine: rank 0's own engine.
        crew: the other ranks.
        config: the other ranks open their engines from it.
    """

    def __init__(self, engine: Engine, crew: Crew, config: Any) -> None:
        self.engine = engine
        self.crew = crew
        self._engine_lock = threading.Lock()
        self._thread = _ThreadLane()
        self._router = Router(crew.size)
        crew.tell("open", config)

    def generate(self, requests: Sequence[Request]) -> list[Completion | EngineFailure]:
        """Write a text for each request, on the rank of this thread."""
        answers = self._ask_rank("generate", requests)
        if answers is not None:
            return answers
        with self._engine_lock:
            return self.engine.generate(requests)

    def choose(self, choices: Sequence[Choice]) -> list[Scores | EngineFailure]:
        """Score the candidates of each choice, on the rank of this thread."""
        answers = self._ask_rank("choose", choices)
        if answers is not None:
            return answers
        with self._engine_lock:
            return self.engine.choose(choices)

    def revision(self, model: str, adapter: str | None) -> str:
        """Fingerprint of a model with its adapter, the same on every rank."""
        return self.engine.revision(model, adapter)

    def enter(self, lane: int) -> None:
        """Bind the calling thread to a rank."""
        self._thread.lane = lane

    def _ask_rank(self, order: str, questions: Sequence[Any]) -> list[Any] | None:
        """Answers of this thread's rank; None if that is rank 0, or lost."""
        member = self.crew.member(self._thread.lane)
        if member is None:
            return None
        try:
            return member.ask(order, questions)
        except _RankGone:
            self.crew.lose(member.rank)
            return None

    def plan(self, questions: Sequence[Request] | Sequence[Choice]) -> Parts:
        """Cut a call into parts of similar cost and assign them to ranks, prompts with a common beginning together."""
        texts = [_routing_text(question) for question in questions]
        groups = _group_alike(texts)
        costs = [_cost(group, texts, questions) for group in groups]
        share = sum(costs) / self.crew.size
        loads = [0.0] * self.crew.size
        for rank in range(1, self.crew.size):
            if not self.crew.member(rank):
                loads[rank] = float("inf")  # keeps the router away from lost ranks
        pieces_of_rank: list[list[Piece]] = [[] for _ in loads]
        for group, cost in zip(groups, costs, strict=True):
            for piece_cost, piece in _split(group, cost, share):
                rank = self._router.place(texts[piece[0]], loads, share / 2)
                loads[rank] += piece_cost
                pieces_of_rank[rank].append((piece_cost, piece))
        return [_merge(pieces, share / PARTS_PER_RANK) for pieces in pieces_of_rank]


def _routing_text(question: Request | Choice) -> str:
    """The weights and the prompt. Weights come first, so that a rank rarely switches adapters."""
    parts = [question.model, question.adapter or ""]
    parts += [message.content for message in question.messages]
    return "\n".join(parts)


def _group_alike(texts: Sequence[str]) -> list[list[int]]:
    """Group the indexes of texts that share at least half of their beginning with a neighbour, in sorted order."""
    groups: list[list[int]] = []
    previous = ""
    for index in sorted(range(len(texts)), key=texts.__getitem__):
        text = texts[index]
        half = min(len(previous), len(text)) // 2 + 1
        if groups and previous[:half] == text[:half]:
            groups[-1].append(index)
        else:
            groups.append([index])
        previous = text
    return groups


def _cost(group: Sequence[int], texts: Sequence[str], questions: Sequence[Request] | Sequence[Choice]) -> float:
    """Cost of a group in characters: the shared beginning once, the rest of every text, and the new tokens."""
    new_tokens = 0
    for index in group:
        question = questions[index]
        if isinstance(question, Request):
            new_tokens += question.sampling.max_new_tokens
        else:
            new_tokens += 1  # a choice reads the probabilities of one token
    lengths = [len(texts[index]) for index in group]
    # Neighbours in a group share at least half of the shorter one (see `_group_alike`); one text shares with nobody.
    shared = min(lengths) // 2
    characters = sum(lengths) - shared * (len(group) - 1)
    return float(characters + _WRITE_COST * new_tokens)


def _split(group: list[int], cost: float, limit: float) -> list[Piece]:
    """Cut a group into equal pieces that stay within a cost and a number of requests."""
    by_cost = -int(-cost // max(limit, 1.0))  # rounded up
    by_count = -(-len(group) // LARGEST_PART)
    count = max(1, min(len(group), by_cost), by_count)
    cuts = [round(len(group) * index / count) for index in range(count + 1)]
    return [(cost / count, group[start:end]) for start, end in pairwise(cuts)]


def _merge(pieces: Sequence[Piece], smallest: float) -> list[list[int]]:
    """Join neighbouring pieces into parts until each is large enough."""
    parts: list[list[int]] = []
    missing = 0.0
    for cost, piece in pieces:
        if parts and missing > 0 and len(parts[-1]) + len(piece) <= LARGEST_PART:
            parts[-1] += piece
        else:
            parts.append(list(piece))
            missing = smallest
        missing -= cost
    return parts


def join(open_engine: OpenEngine, say: Callable[[str], None] = print) -> Crew | None:
    """Connect the processes that were started together.

    Args:
        open_engine: opens the engine of a rank other than 0.
        say: prints lines about the ranks.

    Returns:
        On rank 0 the other ranks; None if this process is alone. On another rank it answers rank 0 and never returns.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        if _was_started_alone(os.environ):
            say(
                "accelerate was told of several processes and started this one alone, as it does on a CPU; for all of "
                "them: accelerate launch --multi_gpu --num_processes N -m debate_rl ..."
            )
        return None
    rank = int(os.environ["RANK"])
    local_rank = int(os.environ.get("LOCAL_RANK", rank))  # srun sets none
    listener = None
    contact = None
    if rank == 0:
        key = secrets.token_bytes(32)
        listener = _listen(os.environ.get("MASTER_ADDR", ""), key)
        contact = (listener.address, key)
    contact = _exchange(contact)
    # A training that rank 0 starts later must not find the variables of this launch: it would wait for these ranks.
    for name in list(os.environ):
        if name in _LAUNCH_VARIABLES or name.startswith(_LAUNCH_PREFIXES):
            del os.environ[name]
    if listener is None:
        address, key = contact
        _serve(Client(address, authkey=key), rank, local_rank, open_engine)
        sys.exit(0)
    crew = Crew(size, say=say)
    threading.Thread(target=_accept, args=(listener, crew), daemon=True).start()
    say(f"{size} processes answer; rank 0 writes")
    return crew


def _was_started_alone(env: Mapping[str, str]) -> bool:
    """Whether `accelerate launch` was told of several processes and started one.

    Its launcher for one process (`simple_launcher`) gives the address at which processes meet only where it was told
    of several, and then no number of them.
    """
    return "ACCELERATE_MIXED_PRECISION" in env and "MASTER_ADDR" in env and "WORLD_SIZE" not in env


def _listen(host: str, key: bytes) -> Listener:
    """Open rank 0's socket on the address by which the processes were started, else on all addresses."""
    try:
        return Listener((host, 0), authkey=key, backlog=64)
    except OSError:
        return Listener(("", 0), authkey=key, backlog=64)


def _exchange(contact: Any) -> Any:
    """Send what rank 0 passes to all ranks, through a process group that is closed again."""
    import torch
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list, gather_object

    # If OMP_NUM_THREADS is unset, accelerate changes the number of threads, and with it the last digits of results.
    threads_unset = "OMP_NUM_THREADS" not in os.environ
    if threads_unset:
        os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())
    # Gloo on the CPU: NCCL would need a GPU per rank, and would occupy memory there.
    state = PartialState(cpu=True, backend="gloo", timeout=timedelta(seconds=JOIN_TIMEOUT))
    if threads_unset:
        del os.environ["OMP_NUM_THREADS"]
    (contact,) = broadcast_object_list([contact])
    # Rank 0 hosts the group, so it must not close it before all have the contact. A gather is the barrier, because
    # `wait_for_everyone` allocates a tensor on the GPU of each local rank, which may not exist.
    gather_object([state.process_index])
    state.destroy_process_group()
    # The state is a singleton: an Accelerator of a later training in this process would take over its ranks.
    PartialState._reset_state()
    return contact


def _accept(listener: Listener, crew: Crew) -> None:
    """Add the other ranks to the crew as they connect."""
    for _ in range(crew.size - 1):
        connection = listener.accept()
        crew.add(Member(connection.recv(), connection))
    listener.close()


def _serve(connection: Connection, rank: int, local_rank: int, open_engine: OpenEngine) -> None:
    """Answer rank 0 until it is gone."""
    connection.send(rank)
    engine: Engine | None = None
    config: Any = None
    while True:
        try:
            order, value = connection.recv()
        except (EOFError, OSError):
            return
        if order in ("open", "rest"):
            if order == "open":
                config = value
            # The engine is opened again with the next question; until then its memory is free for a training.
            engine = None
            free_memory()
            continue
        try:
            engine = engine or open_engine(config, local_rank)
            answers = engine.generate(value) if order == "generate" else engine.choose(value)
            reply: tuple[str, Any] = ("answers", answers)
        except UserError as error:
            reply = ("mistake", str(error))
        except Exception:  # whatever it is, rank 0 must hear of it
            reply = ("error", traceback.format_exc())
        try:
            connection.send(reply)
        except OSError:
            return
