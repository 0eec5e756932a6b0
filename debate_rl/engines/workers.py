"""A crew: processes started together, by `accelerate launch` or the like, that answer the requests of one run.

Rank 0 runs the stages as a process alone would, and writes all files; a call to its engine is cut into parts, which all
ranks answer side by side. An answer depends on its request alone, so the run's files are the same for any number of
processes. What begins alike goes to the rank that has read it before.

The processes find one another through torch.distributed (gloo); requests then go over sockets, so that a rank that dies
is noticed at once: the others do its part. Ranks other than 0 write nothing, and end with rank 0.
"""

from __future__ import annotations

import gc
import os
import secrets
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import pairwise
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

from debate_rl.engines.parallel import Parts
from debate_rl.engines.request import Choice, Completion, Engine, EngineFailure, Request, Scores
from debate_rl.engines.router import Router
from debate_rl.errors import UserError

PIECES = 4
"""Parts that a rank gets of a call, about: who is done early takes over others'."""
MOST = 256
"""Requests of a part at most: what is lost with a rank."""
WAIT = 600
"""Seconds to wait for processes that were started together."""
_NEW = 4
"""Weight of a token to be written, in characters to be read."""
_LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
_PREFIXES = ("TORCHELASTIC_", "ACCELERATE_", "FSDP_", "ROLE_")

OpenEngine = Callable[[Any, int], Engine]
"""Opens a rank's engine, of what rank 0 told it (the config) and its number on its machine."""


class _Gone(Exception):
    """A rank does not answer any more."""


class Member:
    """Another rank, as rank 0 sees it.

    Args:
        rank: its number.
        connection: to it.
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
            raise _Gone from error

    def ask(self, order: str, questions: Sequence[Any]) -> list[Any]:
        """Have questions answered.

        Raises:
            UserError: what the rank's engine raised.
            RuntimeError: something else went wrong there.
        """
        self.tell(order, list(questions))
        try:
            kind, value = self._connection.recv()
        except (EOFError, OSError) as error:
            raise _Gone from error
        if kind == "mistake":
            raise UserError(value)
        if kind == "error":
            raise RuntimeError(f"rank {self.rank}:\n{value}")
        self.answered += len(value)
        return list(value)


class Crew:
    """All ranks but the first, from where that stands.

    Args:
        size: how many processes there are.
        members: the others; more may come while they are waited for.
        say: takes a line about a rank that is gone.
    """

    def __init__(self, size: int, members: Sequence[Member] = (), say: Callable[[str], None] = print) -> None:
        self.size = size
        self.say = say
        self._members: dict[int, Member] = {member.rank: member for member in members}
        self._whole = threading.Event()
        self._told: Any = None
        self._lock = threading.Lock()
        if len(self._members) + 1 == size:
            self._whole.set()

    def add(self, member: Member) -> None:
        """Take in a rank that has come."""
        with self._lock:
            self._members[member.rank] = member
            if len(self._members) + 1 == self.size:
                self._whole.set()

    def member(self, rank: int) -> Member | None:
        """A rank that is there."""
        return self._members.get(rank)

    def lose(self, rank: int) -> None:
        """Go on without a rank."""
        with self._lock:
            gone = self._members.pop(rank, None)
        if gone is not None:
            self.say(f"rank {rank} is gone; the others do its part")

    def tell(self, order: str, value: Any = None) -> None:
        """Send all an order that has no answer.

        Raises:
            UserError: not all have come in time.
        """
        if not self._whole.wait(WAIT):
            there = len(self._members) + 1
            raise UserError(f"{there} of {self.size} processes came within {WAIT} s; start them again")
        for rank, member in list(self._members.items()):
            try:
                member.tell(order, value)
            except _Gone:
                self.lose(rank)


class _Here(threading.local):
    """The lane of each thread."""

    lane: int = 0


class CrewEngine:
    """The engine of a run with a crew, to stand behind a store and a `Parallel`.

    Args:
        engine: rank 0's own.
        crew: the other ranks.
        told: what they open their engines of.
    """

    def __init__(self, engine: Engine, crew: Crew, told: Any) -> None:
        self.engine = engine
        self.crew = crew
        self._own = threading.Lock()
        self._here = _Here()
        self._router = Router(crew.size)
        crew.tell("open", told)

    def generate(self, requests: Sequence[Request]) -> list[Completion | EngineFailure]:
        """Write a text for each request, at the rank of this thread."""
        answers = self._ask("generate", requests)
        return self.engine_alone(lambda: self.engine.generate(requests)) if answers is None else answers

    def choose(self, choices: Sequence[Choice]) -> list[Scores | EngineFailure]:
        """Score the candidates of each choice, at the rank of this thread."""
        answers = self._ask("choose", choices)
        return self.engine_alone(lambda: self.engine.choose(choices)) if answers is None else answers

    def revision(self, model: str, adapter: str | None) -> str:
        """Fingerprint of a model with its adapter, the same at every rank."""
        return self.engine.revision(model, adapter)

    def enter(self, lane: int) -> None:
        """This thread asks a rank from now on."""
        self._here.lane = lane

    def engine_alone(self, work: Callable[[], Any]) -> Any:
        """Do something with rank 0's own engine, which answers one call at a time."""
        with self._own:
            return work()

    def _ask(self, order: str, questions: Sequence[Any]) -> list[Any] | None:
        """The answers of this thread's rank; None where that is rank 0, or gone."""
        member = self.crew.member(self._here.lane)
        if member is None:
            return None
        try:
            return member.ask(order, questions)
        except _Gone:
            self.crew.lose(member.rank)
            return None

    def plan(self, questions: Sequence[Request] | Sequence[Choice]) -> Parts:
        """Cut a call into parts of about one size, texts that begin alike together, and give each to a rank."""
        texts = [_text(question) for question in questions]
        groups = _alike(texts)
        weights = [_weight(group, texts, questions) for group in groups]
        limit = sum(weights) / self.crew.size
        pieces = [
            piece for group, weight in zip(groups, weights, strict=True) for piece in _split(group, weight, limit)
        ]
        loads = [0.0 if not rank or self.crew.member(rank) else float("inf") for rank in range(self.crew.size)]
        lanes: list[list[tuple[float, list[int]]]] = [[] for _ in loads]
        for weight, piece in pieces:
            at = self._router.place(texts[piece[0]], loads, limit / 2)
            loads[at] += weight
            lanes[at].append((weight, piece))
        return [_merged(own, limit / PIECES) for own in lanes]


def _text(question: Request | Choice) -> str:
    """What a question begins with, weights first: each rank switches adapters seldom."""
    return "\n".join([question.model, question.adapter or "", *(message.content for message in question.messages)])


def _alike(texts: Sequence[str]) -> list[list[int]]:
    """Places of texts that share at least half of their beginning with a neighbour, in the order of the texts."""
    groups: list[list[int]] = []
    for at in sorted(range(len(texts)), key=texts.__getitem__):
        last = texts[groups[-1][-1]] if groups else ""
        half = min(len(last), len(texts[at])) // 2 + 1
        if groups and last[:half] == texts[at][:half]:
            groups[-1].append(at)
        else:
            groups.append([at])
    return groups


def _weight(group: Sequence[int], texts: Sequence[str], questions: Sequence[Request] | Sequence[Choice]) -> float:
    """What a group costs, in characters: the first text, what others add, and what is to be written."""
    new = 0
    for at in group:
        question = questions[at]
        new += question.sampling.max_new_tokens if isinstance(question, Request) else 1
    lengths = [len(texts[at]) for at in group]
    shared = min(lengths) // 2 if len(group) > 1 else 0
    return float(shared + sum(length - shared for length in lengths) + _NEW * new)


def _split(group: list[int], weight: float, limit: float) -> list[tuple[float, list[int]]]:
    """A group in pieces of which none is too large, with their weights."""
    count = max(1, min(len(group), -int(-weight // max(limit, 1.0))), -(-len(group) // MOST))
    cuts = [round(len(group) * at / count) for at in range(count + 1)]
    return [(weight / count, group[start:end]) for start, end in pairwise(cuts)]


def _merged(pieces: Sequence[tuple[float, list[int]]], least: float) -> list[list[int]]:
    """Neighbouring pieces together, until they are large enough."""
    found: list[list[int]] = []
    room = 0.0
    for weight, piece in pieces:
        if found and room > 0 and len(found[-1]) + len(piece) <= MOST:
            found[-1] += piece
        else:
            found.append(list(piece))
            room = least
        room -= weight
    return found


def join(open_engine: OpenEngine, say: Callable[[str], None] = print) -> Crew | None:
    """Find the processes that were started with this one.

    Afterwards the environment no longer says that there are others: a training that rank 0 starts is its own.

    Args:
        open_engine: opens the engine of a rank other than 0.
        say: takes lines about the crew.

    Returns:
        The others, at rank 0; None where this process is alone. At another rank it answers rank 0 and never returns.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return None
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", os.environ["RANK"]))
    key = secrets.token_bytes(32)
    listener = _listener(os.environ.get("MASTER_ADDR", ""), key) if rank == 0 else None
    address, key = _shared((listener.address, key) if listener else None)
    for name in [name for name in os.environ if name in _LAUNCHED or name.startswith(_PREFIXES)]:
        del os.environ[name]
    if listener is None:
        _serve(Client(address, authkey=key), rank, local, open_engine)
        sys.exit(0)
    crew = Crew(size, say=say)
    threading.Thread(target=_accept, args=(listener, crew), daemon=True).start()
    say(f"{size} processes answer; rank 0 writes")
    return crew


def _listener(host: str, key: bytes) -> Listener:
    """Where the others find rank 0: on the address by which they were started, else on all."""
    try:
        return Listener((host, 0), authkey=key, backlog=64)
    except OSError:
        return Listener(("", 0), authkey=key, backlog=64)


def _shared(told: Any) -> Any:
    """What rank 0 tells all others."""
    import torch.distributed as dist

    dist.init_process_group("gloo", timeout=timedelta(seconds=WAIT))
    box = [told]
    dist.broadcast_object_list(box, src=0)
    dist.barrier()
    dist.destroy_process_group()
    return box[0]


def _accept(listener: Listener, crew: Crew) -> None:
    """Take in the others as they come."""
    for _ in range(crew.size - 1):
        connection = listener.accept()
        crew.add(Member(connection.recv(), connection))
    listener.close()


def _serve(connection: Connection, rank: int, local: int, open_engine: OpenEngine) -> None:
    """Answer rank 0 until that is gone."""
    connection.send(rank)
    engine: Engine | None = None
    told: Any = None
    while True:
        try:
            order, value = connection.recv()
        except (EOFError, OSError):
            return
        if order in ("open", "rest"):
            told = value if order == "open" else told
            engine = None
            _free()
            continue
        try:
            engine = engine or open_engine(told, local)
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


def _free() -> None:
    """Give memory back that an engine held."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
