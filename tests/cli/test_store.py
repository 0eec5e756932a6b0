import subprocess
import sys

from debate_rl.engines.request import Message, Request
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.engines.store import StoredEngine
from tests.command import mistake

HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "scipy", "numpy", "pydantic")


def test_the_command_line_loads_nothing_heavy_before_it_is_needed():
    code = f"import sys, debate_rl.cli.main; print([name for name in {HEAVY} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_playing_with_rules_needs_no_torch():
    code = (
        "import sys, debate_rl.arena.tournament, debate_rl.engines.store\n"
        "import debate_rl.engines.server.engine, debate_rl.config.tree\n"
        "print([name for name in ('torch', 'transformers', 'trl', 'peft', 'datasets') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def filled(folder):
    asked = [Request(messages=(Message(role="user", content=f"{at}"),), model="m") for at in range(5)]
    StoredEngine(ScriptedEngine(), folder / "store").generate(asked)
    asked = [request.model_copy(update={"adapter": "old/adapter"}) for request in asked]
    StoredEngine(ScriptedEngine(), folder / "store").generate(asked)


def test_a_store_is_shown_and_pruned(call, tmp_path):
    filled(tmp_path)
    code, out, _ = call("store", "show", str(tmp_path))
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == ["answers", "5", "5"]
    assert "m + old/adapter" in out
    code, out, _ = call("store", "prune", str(tmp_path / "store"), "--of", "old")
    assert code == 0 and out.startswith("5 answers kept, 5 removed")
    assert "old/adapter" not in call("store", "show", str(tmp_path))[1]


def test_a_store_that_a_run_is_using_is_not_pruned(call, tmp_path):
    import fcntl

    filled(tmp_path)
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another process is at work" in mistake(call("store", "prune", str(tmp_path)))
    assert call("store", "prune", str(tmp_path))[1].startswith("10 answers kept, 0 removed")


def test_no_store_is_one_line(call, tmp_path):
    assert "no store there" in mistake(call("store", "show", str(tmp_path)))
