"""`debate-rl serve`: the command of the server that a config needs."""

import os
import shlex

import pytest
import yaml

from debate_rl.engines.server.adapters import adapter_name
from debate_rl.engines.server.commands import Deployment, vllm_command
from tests import forked
from tests.command import mistake
from tests.tiny import tiny_adapter, tiny_model


@pytest.fixture
def model(tmp_path):
    return tiny_model(tmp_path / "base")


@pytest.fixture
def config(tmp_path, model):
    def write(stages=None, **engine):
        tree = {
            "name": "served",
            "runs": str(tmp_path / "runs"),
            "questions": {"train": 4, "test": 2},
            "protocol": {"prompts": "lab", "max_new_tokens": 20},
            "models": {"debater": model, "judge": model},
            "engine": {"kind": "server", "url": "http://localhost:8123/v1", **engine},
            "stages": stages or {"sft": {"lora": {"r": 12}}, "tournament": {"players": ["base", "base@2"]}},
        }
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(tree))
        return path

    return write


def words_of(out):
    """Environment and arguments of a command as a shell reads it."""
    words = shlex.split(out.replace("\\\n", " "))
    first = next(index for index, word in enumerate(words) if "=" not in word)
    return dict(word.split("=", 1) for word in words[:first]), words[first:]


def after(words, flag):
    return words[words.index(flag) + 1]


def test_the_command_serves_the_model_under_the_name_that_the_engine_asks_for(call, config, model):
    code, out, _ = call("serve", config(load_adapters=True))
    env, words = words_of(out)
    assert code == 0 and words[:3] == ["vllm", "serve", model]
    assert after(words, "--served-model-name") == model
    assert (after(words, "--host"), after(words, "--port")) == ("127.0.0.1", "8123")
    assert int(after(words, "--max-model-len")) <= 512  # what the model reads
    assert after(words, "--max-lora-rank") == "16" and env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
    assert {"--enable-prefix-caching", "--enable-prompt-tokens-details", "--generation-config"} <= set(words)


def test_adapters_are_named_as_the_engine_asks_for_them(call, config, model, tmp_path):
    folder = tmp_path / "runs" / "served" / "sft" / "adapter"
    tiny_adapter(model, folder)
    _, out, _ = call("serve", config())
    env, words = words_of(out)
    assert after(words, "--lora-modules") == f"{adapter_name(folder)}={folder}"
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in env


def test_a_key_is_named_and_never_shown(call, config, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret")
    _, out, err = call("serve", config(key_env="MY_KEY"))
    assert 'VLLM_API_KEY="$MY_KEY"' in out and "sk-secret" not in out + err


def test_several_models_are_several_servers(call, config, tmp_path):
    other = tiny_model(tmp_path / "other", seed=1)
    code, out, _ = call("serve", config(), f"models.judge={other}")
    assert code == 0 and out.count("vllm serve") == 2 and "--port 8124" in out
    assert "# 2 models, a server each" in out
    assert "--start starts one server" in mistake(call("serve", config(), f"models.judge={other}", "--start"))


def test_a_gguf_file_is_served_by_llama_cpp(call, config, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    every = [f"models.{role}={path}" for role in ("debater", "judge")]
    _, out, _ = call("serve", config(stages={"tournament": {"players": ["base", "base@2"]}}), *every)
    _, words = words_of(out)
    assert words[0] == "llama-server" and after(words, "--model") == after(words, "--alias") == str(path)
    assert int(after(words, "--ctx-size")) % int(after(words, "--parallel")) == 0 and "--jinja" in words


def test_mistakes_are_one_line(call, config, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "vllm is not on the PATH" in mistake(call("serve", config(), "--start"))
    assert "set engine.kind=server" in mistake(call("serve", config(), "engine.kind=transformers", "engine.url="))
    (tmp_path / "vllm").write_text("#!/bin/sh\n")
    (tmp_path / "vllm").chmod(0o755)
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    assert "NO_SUCH_KEY of engine.key_env is not set" in mistake(
        call("serve", config(key_env="NO_SUCH_KEY"), "--start")
    )


def test_a_server_that_is_started_gets_the_printed_words(call, config, tmp_path):
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$VLLM_API_KEY" "$@"\n')
    program.chmod(0o755)
    path = config(key_env="MY_KEY")
    _, out, _ = call("serve", path)
    said = tmp_path / "said.txt"
    env = {"PATH": f"{program.parent}:{os.environ['PATH']}", "MY_KEY": "sk-1"}
    process = forked.start("debate_rl", "serve", path, "--start", output=said, **env)
    process.join()
    assert process.exitcode == 0
    assert said.read_text().splitlines()[-1].split() == ["sk-1", *words_of(out)[1][1:]]


def test_on_a_cpu_prompts_are_not_read_in_pieces():
    served = Deployment(name="m", path="m", longest=9000, context=32768, cpu=True)
    words = vllm_command(served).words
    assert "--no-enable-chunked-prefill" in words and after(words, "--max-num-batched-tokens") == "9216"
    assert "--enforce-eager" not in vllm_command(served.model_copy(update={"cpu": False})).words
