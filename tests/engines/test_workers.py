import threading
from multiprocessing import Pipe

import pytest

from debate_rl.engines.parallel import Parallel
from debate_rl.engines.request import Choice, Message, Request, Sampling
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.engines.store import StoredEngine
from debate_rl.engines.workers import Crew, CrewEngine, Member, _serve, join
from debate_rl.errors import UserError

STORY = "it rained . " * 300


def request(story, end, **fields):
    messages = (Message(role="system", content="be brief"), Message(role="user", content=f"{story} {STORY} {end}"))
    return Request(messages=messages, model="m", sampling=Sampling(max_new_tokens=20), **fields)


def requests(stories=6, ends=4):
    return [request(f"story {s}", f"end {e}") for e in range(ends) for s in range(stories)]


class Ranks:
    """Members that live in threads of this process, each with an engine of its own."""

    def __init__(self, *engines, say=print):
        self.engines, self.ends, self.told = engines, [], []
        members = []
        for rank, engine in enumerate(engines, start=1):
            ours, theirs = Pipe()
            self.ends.append(theirs)

            def opened(told, local, engine=engine):
                self.told.append((told, local))
                return engine

            threading.Thread(target=_serve, args=(theirs, rank, rank, opened), daemon=True).start()
            assert ours.recv() == rank
            members.append(Member(rank, ours))
        self.crew = Crew(len(engines) + 1, members, say)

    def front(self, own, folder):
        spread = CrewEngine(own, self.crew, "config")
        return Parallel(StoredEngine(spread, folder), spread), spread


def test_a_crew_answers_as_one_engine_does_and_every_rank_takes_part(tmp_path):
    own, others = ScriptedEngine(), [ScriptedEngine(), ScriptedEngine()]
    ranks = Ranks(*others)
    front, _ = ranks.front(own, tmp_path / "crew")
    asked = requests()
    alone = ScriptedEngine()
    assert front.generate(asked) == StoredEngine(alone, tmp_path / "alone").generate(asked)
    every = [engine.requests for engine in (own, *others)]
    assert sum(map(len, every)) == len(asked) and all(every)
    assert sorted(map(str, (tmp_path / "crew").iterdir())) and set(ranks.told) == {("config", 1), ("config", 2)}
    choices = [Choice(messages=one.messages, model="m", candidates=("A", "B")) for one in asked]
    assert front.choose(choices) == alone.choose(choices)
    assert front.generate(asked) == alone.generate(asked) and sum(map(len, every)) == len(asked)


def test_a_story_stays_with_the_rank_that_has_read_it(tmp_path):
    own, other = ScriptedEngine(), ScriptedEngine()
    _, spread = Ranks(other).front(own, tmp_path)
    homes = {}
    for turn in range(3):
        asked = [request(f"story {s}", f"turn {turn} draw {d}") for s in range(6) for d in range(4)]
        parts = spread.plan(asked)
        assert sorted(at for lane in parts for part in lane for at in part) == list(range(24))
        for lane, own_parts in enumerate(parts):
            for part in own_parts:
                for at in part:
                    homes.setdefault(at // 4, set()).add(lane)
    assert all(len(lanes) == 1 for lanes in homes.values())
    assert {lane for lanes in homes.values() for lane in lanes} == {0, 1}


def test_one_long_story_is_shared_out(tmp_path):
    _, spread = Ranks(ScriptedEngine(), ScriptedEngine()).front(ScriptedEngine(), tmp_path)
    parts = spread.plan([request("one", f"draw {d}") for d in range(90)])
    sizes = [sum(map(len, lane)) for lane in parts]
    assert sum(sizes) == 90 and min(sizes) >= 20


def test_a_rank_that_dies_loses_only_its_part(tmp_path):
    said, ranks = [], None

    def die(request):
        if len(ranks.engines[0].requests) > 5:  # it takes the connection with it
            ranks.ends[0].close()
        return "last words"

    own = ScriptedEngine(lambda request: request.messages[1].content[:7])
    ranks = Ranks(ScriptedEngine(die), say=said.append)
    front, _ = ranks.front(own, tmp_path)
    asked = requests(stories=20)
    found = front.generate(asked)
    assert len(found) == 80 and said == ["rank 1 is gone; the others do its part"]
    assert [one.text for one in front.generate(requests(stories=3, ends=9))][:3] == ["story 0", "story 1", "story 2"]
    assert ranks.crew.member(1) is None and own.requests


def test_what_goes_wrong_at_a_rank_is_told(tmp_path):
    class Broken(ScriptedEngine):
        def generate(self, asked):
            raise self.error

    engine = Broken()
    front, spread = Ranks(engine).front(engine, tmp_path)
    engine.error = UserError("no such model 'm'")
    with pytest.raises(UserError, match="no such model 'm'"):
        front.generate(requests())
    engine.error = ZeroDivisionError("boom")
    spread.enter(1)
    with pytest.raises(RuntimeError, match=r"(?s)rank 1:.*boom"):
        spread.generate(requests())


def test_resting_ranks_open_their_engine_again(tmp_path):
    ranks = Ranks(ScriptedEngine())
    _, spread = ranks.front(ScriptedEngine(), tmp_path)
    spread.enter(1)
    spread.generate(requests())
    ranks.crew.tell("rest")
    spread.generate(requests())
    assert ranks.told == [("config", 1)] * 2


def test_a_process_alone_has_no_crew(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join(lambda told, local: ScriptedEngine()) is None


def test_a_process_that_accelerate_started_alone_of_several_says_so(monkeypatch):
    # What `accelerate launch --num_processes 2` sets on a CPU; with 1 process it gives no address.
    for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    said = []
    assert join(None, said.append) is None and not said
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    assert join(None, said.append) is None
    assert len(said) == 1 and "accelerate launch --multi_gpu --num_processes N" in said[0]


def test_accelerate_still_passes_what_tells_of_processes_that_it_did_not_start(monkeypatch):
    for name in ("WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    from accelerate.commands.launch import launch_command_parser
    from accelerate.utils.launch import prepare_simple_launcher_cmd_env

    def passed(processes):
        words = ["--num_processes", str(processes), "--num_machines", "1", "--mixed_precision", "no"]
        args = launch_command_parser().parse_args([*words, "--dynamo_backend", "no", "-m", "debate_rl"])
        args.use_cpu = True
        return prepare_simple_launcher_cmd_env(args)[1]

    names = {"MASTER_ADDR", "ACCELERATE_MIXED_PRECISION"}
    assert names <= passed(2).keys() and "WORLD_SIZE" not in passed(2)
    assert "MASTER_ADDR" not in passed(1)
