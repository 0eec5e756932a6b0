"""Models are loaded from safetensors, and code in their folders never runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from debate_rl.data.models import model_path
from debate_rl.engines.load import check_bias, context_of, load_config, load_tokenizer
from debate_rl.engines.local.engine import TransformersEngine
from debate_rl.errors import UserError
from debate_rl.trainers.common.load import load_model

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
        "engine": lambda: TransformersEngine(str)._load(path),
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


def test_an_adapter_that_changes_the_biases_of_its_base_is_refused(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"bias": "lora_only"}))
    with pytest.raises(UserError, match="bias: lora_only"):
        check_bias(tmp_path)
