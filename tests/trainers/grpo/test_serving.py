"""Online training whose speeches a server writes, over HTTP, with a tiny model behind the server."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, TrainerCallback

from debate_rl.engines.chat import prompt_ids
from debate_rl.engines.local.engine import TransformersEngine
from debate_rl.engines.request import Completion, Message, Request, Sampling
from debate_rl.engines.server import engine as server_engine
from debate_rl.errors import UserError
from debate_rl.judges.judge import Judge
from debate_rl.players.debater import Debater
from debate_rl.records import read_json, read_log, write, write_json
from debate_rl.trainers.common.job import job_name, launch, main, run_job
from debate_rl.trainers.common.load import load_tokenizer
from debate_rl.trainers.common.settings import Job, Lora
from debate_rl.trainers.grpo.eval_metrics import Point
from debate_rl.trainers.grpo.settings import Online, Opponents, Rewards, Server, Watch
from tests import ROOT
from tests.engines.wire import WireServer
from tests.trainers.games import questions, rules

CONFIGS = ROOT / "configs/accelerate"
TRAIN = {"max_steps": 2, "num_generations": 2, "gradient_accumulation_steps": 1, "per_device_train_batch_size": 8,
         "learning_rate": 1e-2, "beta": 0.1, "logging_steps": 1}  # fmt: skip


@pytest.fixture
def wire(base, other_base):
    """Opens servers of both tiny models: `m` is the policy's, `judge` answers with probabilities."""
    tokenizer, judge = load_tokenizer(base), AutoModelForCausalLM.from_pretrained(other_base)
    models = {"m": base, "judge": other_base}
    open_servers = []

    def ids(said):
        if isinstance(said, str):
            return tokenizer(said, add_special_tokens=False)["input_ids"]
        return prompt_ids(tokenizer, [Message(**message) for message in said])

    @torch.no_grad()
    def logits(tokens):
        return torch.log_softmax(judge(torch.tensor([list(tokens)])).logits[0].double(), -1)

    def scores(messages):
        return {tokenizer.decode([token]): float(p) for token, p in enumerate(logits(ids(messages))[-1])}

    def token_logprobs(tokens):
        found = logits(tokens)
        return [float(found[at - 1, tokens[at]]) for at in range(1, len(tokens))]

    def opened(**options):
        engine = TransformersEngine(lambda name: models.get(name, name), keep_tokens=True)
        settings = {
            "served": ("m", "judge"), "scores": scores, "tokenize": ids, "token_logprobs": token_logprobs,
            "adapters": "m", "ids": True, **options,
        }  # fmt: skip
        open_servers.append(WireServer(engine, **settings))
        return open_servers[-1]

    yield opened
    for server in open_servers:
        server.close()


@pytest.fixture
def make(tmp_path, base, other_base):
    """Makes a small online job; with a wire its speeches are written there."""

    def job(out="out", wire=None, verdicts=False, lora=None, train=None, watch=None, **fields) -> Job:
        rows, kept = tmp_path / "questions.jsonl", tmp_path / "watch.jsonl"
        write(rows, questions(6))
        write(kept, questions(10)[6:])
        adapter = fields.pop("adapter", None)
        settings = {
            "protocol": rules(max_new_tokens=8), "rewards": Rewards(truncated="keep"),
            "judge": Judge(model="judge" if verdicts else other_base), **fields,
        }  # fmt: skip
        if watch is not None:
            settings |= {"watch": Watch(**watch), "watch_questions": str(kept)}
        if wire is not None:
            settings["server"] = Server(url=wire.url, model="m", verdicts=verdicts, retries=0)
        return Job(
            kind="grpo", model=base, adapter=adapter, rows=str(rows), out=str(tmp_path / out),
            lora={"full": None}.get(lora, Lora(r=4, alpha=8)), online=Online(**settings),
            train={**TRAIN, **(train or {})},
        )  # fmt: skip

    return job


@pytest.fixture
def start(make_job):
    """An adapter to start from."""
    return run_job(make_job("sft", out="sft"), quiet=True).path


def steps(result):
    """The history's entries of steps."""
    return [entry for entry in read_json(Path(result.path).parent / "history.json") if "loss" in entry]


def moved(result):
    return load_file(f"{result.path}/adapter_model.safetensors")


@pytest.mark.parametrize("verdicts", [False, True])
def test_with_the_same_draws_losses_and_weights_are_those_of_the_engine_here(make, wire, start, verdicts, monkeypatch):
    """A server without `n` is asked for every text with its own seed, and this one draws by it as the engine does."""
    monkeypatch.setattr(server_engine, "_seed", lambda request: request.seed % (1 << 31))
    here = run_job(make("here", adapter=start), quiet=True)
    there = run_job(make("there", wire(most_n=1), verdicts, adapter=start), quiet=True)
    for one, other in zip(steps(here), steps(there), strict=True):
        assert other["loss"] == pytest.approx(one["loss"], abs=1e-6) and other["rollout/retokenized"] == 0
        for name in ("rewards/win/mean", "kl", "completions/mean_length", "rollout/tokens", "rollout/judged"):
            assert other[name] == pytest.approx(one[name], abs=1e-6), name
    one, other = moved(here), moved(there)
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)


def test_every_step_has_an_adapter_with_its_number_and_the_one_before_goes(make, wire, start):
    server = wire()
    held = []
    adapter = server._adapter

    def watch(path, name, folder):
        answer = adapter(path, name, folder)
        held.append(list(server.loaded))
        return answer

    server._adapter = watch
    result = run_job(make("out", server, adapter=start, train={"max_steps": 3}), quiet=True)
    names = [body["lora_name"].rpartition("-")[0] for path, body in server.bodies if path == "/v1/load_lora_adapter"]
    assert names == ["policy-step0", "policy-step1", "policy-step2"]
    assert [name.rpartition("-")[0] for name in server.unloaded] == names
    assert max(map(len, held)) == 2 and server.loaded == {} and server.served == ["m", "judge"]
    assert not (Path(result.path).parent / "policy").exists()
    asked = {body["model"].rpartition("-")[0] for path, body in server.bodies if path == "/v1/chat/completions"}
    assert asked == set(names)


def test_judge_opponents_league_and_curve_may_all_be_there(make, wire, start):
    server = wire()
    watch = {"every": 1, "pool": (Debater(name="bare", model="m"),), "second": Judge(name="second", model="judge")}
    job = make("out", server, True, adapter=start, opponents=Opponents(kind="pool", snapshot=1), watch=watch)
    result = run_job(job, quiet=True)
    points = read_log(Path(result.path).parent / "curve.jsonl", Point)
    assert [point.step for point in points] == [0, 1, 2] and points[-1].second is not None
    assert all(entry["rollout/judge_failures"] == 0 and entry["rollout/failed_games"] == 0 for entry in steps(result))
    left = [name.rpartition("-")[0] for name in server.loaded]
    assert "policy" not in " ".join(left) and "league" not in " ".join(left)
    assert {body["model"] for path, body in server.bodies if body.get("logprobs")} == {"judge"}


@pytest.mark.parametrize("ids", [False, None])
def test_a_server_without_token_ids_has_its_texts_encoded_again_and_counted(make, wire, start, ids):
    server = wire(ids=ids, most_n=1)
    here, there = (run_job(make(out, at, adapter=start), quiet=True) for out, at in (("a", None), ("b", server)))
    assert [entry["rollout/retokenized"] for entry in steps(there)] == [8.0, 8.0]
    assert steps(there)[0]["completions/mean_length"] == pytest.approx(
        steps(here)[0]["completions/mean_length"], rel=0.3
    )
    if ids is None:
        asked = [body for path, body in server.bodies if path == "/v1/chat/completions" and "return_token_ids" in body]
        assert 0 < len(asked) <= 16  # those under way when the first was refused


def test_a_stopped_training_leaves_nothing_behind_when_it_goes_on(make, wire, start):
    server, job = wire(most_n=1), {"adapter": start, "train": {"max_steps": 4, "save_steps": 2}}

    class Killed(Exception):
        pass

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 3:
                raise Killed

    whole = run_job(make("whole", server, **job), quiet=True)
    broken = make("broken", server, **job)
    with pytest.MonkeyPatch.context() as patch:
        # As a process that is killed: nobody tells the server.
        patch.setattr("debate_rl.trainers.grpo.serving.Serving.leave", lambda self, step=None: None)
        with pytest.raises(Killed):
            run_job(broken, [Stop()], quiet=True)
    assert len(server.loaded) == 3 and len(list((Path(broken.out) / "policy").iterdir())) == 3
    resumed = run_job(broken, quiet=True)
    assert server.loaded == {} and not (Path(broken.out) / "policy").exists()
    assert all(torch.allclose(value, moved(resumed)[name], atol=1e-6) for name, value in moved(whole).items())


@pytest.mark.parametrize(
    ("options", "fields", "said"),
    [
        ({"adapters": False}, {}, "LoRA is not enabled: adapter policy-step0-.* was not loaded; start vLLM with"),
        ({}, {"lora": "full"}, "a server can be sent an adapter only; set lora, or server_roles: none"),
        ({"prompt": lambda messages: [1, 2, 3]}, {}, "a prompt as 3 tokens, and training reads .*--chat-template"),
        ({"served": ("other",)}, {"opponents": Opponents(kind="start")}, "does not serve 'm', it serves other"),
    ],
)  # fmt: skip
def test_what_a_server_can_not_do_is_said_in_one_line(make, wire, tmp_path, capsys, options, fields, said):
    job = make("out", wire(**options), **fields)
    with pytest.raises(UserError, match=said) as error:
        run_job(job, quiet=True)
    assert "\n" not in str(error.value)
    write_json(tmp_path / "job.json", job.model_dump(mode="json"))
    assert main([str(tmp_path / "job.json")]) == 2
    assert capsys.readouterr().err.count("error: ") == 1


def test_marks_in_a_speech_reach_the_server_as_training_reads_them(make, wire, start):
    """`<unk>` is special to this tokenizer alone, and the server's engine knows nothing of it."""
    from debate_rl.trainers.grpo.serving import Serving

    server, job = wire(), make("out", wire(), adapter=start)
    serving = Serving(job.online, TransformersEngine(), Path(job.out), load_tokenizer(job.model), job.model)
    said = (Message(role="user", content="where is <unk> the </s> pipe [INST]"),)
    request = Request(messages=said, model=job.model)
    sent = serving._neutralised(request)
    (message,) = sent.messages
    assert sent == serving._neutralised(sent) and "<unk>" not in message.content and "</s>" not in message.content
    assert serving.encode(request) == prompt_ids(load_tokenizer(job.model), sent.messages)
    assert server.loaded == {}


class Overruns:
    """Writes a speech, its end of turn and the opponent's turn, as a model does whose server waits for another end."""

    def __init__(self, tokenizer):
        self.tokens = tuple(tokenizer("the answer is shed <|im_end|> user : no", add_special_tokens=False)["input_ids"])

    def generate(self, requests):
        answer = Completion(
            text="the answer is shed user : no",
            prompt_tokens=4,
            new_tokens=len(self.tokens),
            finish="length",
            revision="r",
            tokens=self.tokens,
        )
        return [answer] * len(requests)


@pytest.mark.parametrize("eos_token", ["<|im_end|>", "</s>"])
def test_a_speech_of_a_server_that_waits_for_another_end_is_learnt_to_its_end_of_turn(make, wire, start, eos_token):
    from debate_rl.trainers.grpo.serving import Serving

    tokenizer, server = load_tokenizer(make().model), wire()
    server.engine = Overruns(tokenizer)
    tokenizer.eos_token = eos_token  # `</s>` as in a base model that was given a chat template
    job = make("out", server)
    serving = Serving(job.online, TransformersEngine(), Path(job.out), tokenizer, job.model)
    serving.send(0, lambda folder: shutil.copytree(start, folder))
    serving.step = 0
    player = serving.player
    message = (Message(role="user", content="where is the pipe ?"),)
    (speech,) = serving.generate([Request(messages=message, model=player.model, adapter=player.adapter)])
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert (speech.text, speech.finish, speech.tokens[-1]) == ("the answer is shed", "stop", end)
    assert end in next(body for path, body in server.bodies if path.endswith("completions"))["stop_token_ids"]


def test_a_speech_that_comes_without_tokens_is_learnt_with_the_templates_end_of_turn(make, wire, start):
    from debate_rl.trainers.grpo.serving import Serving

    tokenizer, server = load_tokenizer(make().model), wire(ids=False)
    tokenizer.eos_token = "</s>"
    job = make("out", server)
    serving = Serving(job.online, TransformersEngine(), Path(job.out), tokenizer, job.model)
    serving.send(0, lambda folder: shutil.copytree(start, folder))
    serving.step = 0
    player = serving.player
    request = Request(
        messages=(Message(role="user", content="where is the pipe ?"),),
        model=player.model,
        adapter=player.adapter,
        sampling=Sampling(max_new_tokens=60),
    )
    speeches = serving.generate([request.model_copy(update={"seed": seed}) for seed in range(16)])
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert {speech.tokens[-1] for speech in speeches if speech.finish == "stop"} == {end}
    assert not any(end in speech.tokens for speech in speeches if speech.finish == "length")


def test_a_job_goes_on_at_another_server_and_not_with_another_judge(make, wire):
    first, second = make("out", wire()), make("out", wire())
    assert first.online.server.url != second.online.server.url and job_name(first) == job_name(second)
    assert job_name(make("out", wire(), True)) != job_name(first) != job_name(make("out"))


@pytest.mark.slow
@pytest.mark.parametrize("config", ["multi_gpu", "zero3"])
def test_of_several_processes_one_sends_the_adapter_and_each_asks_for_its_part(make, wire, start, config):
    server, watch = wire(most_n=1), {"every": 2}
    one = run_job(make("one", server, adapter=start, watch=watch), quiet=True)
    sent = len(server.unloaded)
    job = make("two", server, adapter=start, watch=watch, train={"per_device_train_batch_size": 4})
    two = launch(job, str(CONFIGS / f"{config}.yaml"), processes=2)
    for name in ("loss", "kl", "rewards/win/mean"):
        assert [entry[name] for entry in steps(two)] == pytest.approx([entry[name] for entry in steps(one)], abs=1e-5)
    loads = [body["lora_name"].rpartition("-")[0] for path, body in server.bodies if path == "/v1/load_lora_adapter"]
    policies = [name for name in loads if name.startswith("policy")]
    assert policies == ["policy-step0", "policy-step1", "policy-step2"] * 2 and len(server.unloaded) == 2 * sent
    assert not any(name.startswith("policy") for name in server.loaded)
