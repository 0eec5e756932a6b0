"""Models are loaded from safetensors, and code in their folders never runs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from debate_rl.data.models import model_path
from debate_rl.engines.load import context_of, load_config, load_tokenizer
from debate_rl.engines.local.engine import TransformersEngine
from debate_rl.engines.request import Message, Request
from debate_rl.engines.weights import check_weights, fingerprint
from debate_rl.errors import UserError
from debate_rl.trainers.common.load import load_model
from tests.tiny import tiny_adapter, tiny_model

CODE = "from pathlib import Path\nPath({path!r}).write_text('ran')\nraise ValueError('ran')\n"


def with_code(folder, ran, architecture="own"):
    """A copy of a lab model whose config, tokenizer and weights name a Python file beside them."""
    folder.mkdir()
    for source in Path(model_path("lab-small")).iterdir():
        (folder / source.name).write_bytes(source.read_bytes())
    (folder / "own.py").write_text(CODE.format(path=str(ran)))
    config = json.loads((folder / "config.json").read_text())
    names = {
        "AutoConfig": "own.Config",
        "AutoModelForCausalLM": "own.Model",
        "AutoModelForSequenceClassification": "own.M",
    }
    config["auto_map"] = names
    if architecture == "own":
        config["model_type"] = "own"
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer["auto_map"] = {"AutoTokenizer": ["own.Tokenizer", None]}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return str(folder)


@pytest.mark.parametrize("architecture", ["own", "llama"])
@pytest.mark.parametrize("kind", ["causal", "classifier", "engine", "tokenizer", "config"])
def test_code_from_a_model_folder_never_runs_and_nobody_is_asked(tmp_path, architecture, kind, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *words: pytest.fail("asked on the terminal"))
    path = with_code(tmp_path / "model", tmp_path / "ran", architecture)
    use = {
        "causal": lambda: load_model(path),
        "classifier": lambda: load_model(path, "classifier"),
        "engine": lambda: TransformersEngine(str)._networks.load(path),
        "tokenizer": lambda: load_tokenizer(path),
        "config": lambda: load_config(path),
    }[kind]
    try:
        use()
    except UserError as error:
        assert "\n" not in str(error)
    assert not (tmp_path / "ran").exists()


def test_a_model_that_is_code_alone_is_refused_in_a_line(tmp_path):
    with pytest.raises(UserError, match="Python code from its own folder"):
        load_config(with_code(tmp_path / "model", tmp_path / "ran"))


def test_no_kernels_are_looked_up_on_the_hub(tmp_path):
    (tmp_path / "kernels.py").write_text("raise SystemExit('a kernel was looked up')")
    code = "import debate_rl, debate_rl.trainers.common.load, peft, bitsandbytes, transformers"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), str(tmp_path)])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "kernel" not in done.stderr


def test_the_context_of_a_nested_config_is_that_of_its_text():
    from transformers import Gemma3Config

    assert context_of(Gemma3Config(text_config={"max_position_embeddings": 777})) == 777


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("models") / "base")


def changed(folder, source, file, fields):
    """A copy of a model or adapter whose config has other fields."""
    shutil.copytree(source, folder)
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return str(folder)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"bias": "all"}, "bias: all, which changes its base"),
        ({"bias": "lora_only"}, "bias: lora_only, which changes its base"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights: pissa, which changes its base"),
        ({"init_lora_weights": "olora"}, "init_lora_weights: olora, which changes its base"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication"),
        ({"megatron_config": {"a": 1}, "megatron_core": "this"}, "megatron_config"),
        ({"peft_type": "IA3"}, "kind 'IA3'"),
        ({"use_dora": True}, "lacks weights that its config asks for"),
        ({"rank_pattern": {"(": 2}}, "cannot load adapter"),
    ],
)
def test_an_adapter_that_is_more_than_an_addition_to_its_base_is_refused_in_a_line(base, tmp_path, fields, said):
    lora = changed(tmp_path / "changed", tiny_adapter(base, tmp_path / "lora"), "adapter_config.json", fields)
    engine = TransformersEngine()
    request = Request(messages=(Message(role="user", content="w1"),), model=base)
    (before,) = engine.generate([request])
    with pytest.raises(UserError, match=said) as caught:
        engine.generate([request.model_copy(update={"adapter": lora})])
    assert "\n" not in str(caught.value) and engine.generate([request]) == [before]


def test_an_adapter_of_whole_numbers_is_refused_in_a_line(base, tmp_path):
    path = Path(tiny_adapter(base, tmp_path / "lora")) / "adapter_model.safetensors"
    tensors = {name: tensor.to(torch.int8) for name, tensor in load_file(path).items()}
    save_file(tensors, path)
    (path.parent / "sha256.json").unlink(missing_ok=True)
    request = Request(messages=(Message(role="user", content="w1"),), model=base, adapter=str(path.parent))
    with pytest.raises(UserError, match="as I8, not as fractions; save it in float32"):
        TransformersEngine().generate([request])


def test_a_model_folder_with_an_adapter_in_it_is_refused_since_another_base_would_be_loaded(base, tmp_path):
    other = tiny_model(tmp_path / "other", seed=5)
    tiny_adapter(other, tmp_path / "lora")
    both = changed(tmp_path / "both", base, "config.json", {})
    shutil.copy(tmp_path / "lora" / "adapter_config.json", both)
    with pytest.raises(UserError, match="holds a model and an adapter"):
        load_model(both)


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_a_config_that_names_a_kernel_of_the_hub_is_refused_in_a_line(base, tmp_path, key):
    path = changed(tmp_path / "model", base, "config.json", {key: "someone/attention"})
    with pytest.raises(UserError, match="kernel on the hub, which is not fetched here"):
        load_model(path)


@pytest.mark.parametrize("name", ["evil.bin", "../base/model.safetensors"])
def test_weights_are_the_safetensors_files_of_the_folder_and_no_others(base, tmp_path, name):
    path = changed(tmp_path / "model", base, "config.json", {"transformers_weights": name})
    (tmp_path / "model" / "evil.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UserError, match="transformers"):
        load_model(path)


@pytest.mark.parametrize("junk", [b"{", b"[]", b"\xff", b'{"weight_map": 3}'])
@pytest.mark.parametrize(
    "file", ["config.json", "tokenizer_config.json", "tokenizer.json", "model.safetensors.index.json"]
)
def test_damaged_files_of_a_model_are_one_line_or_do_not_matter(base, tmp_path, file, junk):
    path = changed(tmp_path / "model", base, "config.json", {})
    (tmp_path / "model" / file).write_bytes(junk)
    for use in (check_weights, fingerprint, load_config, load_tokenizer):
        try:
            use(path)
        except UserError as error:
            assert "\n" not in str(error)
