"""What the training stages share: settings that can not train are refused in one line."""

from types import SimpleNamespace

import pytest

from debate_rl.config.tree import parse_config
from debate_rl.errors import UserError
from debate_rl.stages.sft import SftStage
from debate_rl.stages.training import train
from debate_rl.trainers.common.rows import SftRow


def test_quantize_without_an_adapter_is_refused_as_the_config_is_read():
    with pytest.raises(UserError, match="stages.sft.*quantize needs lora"):
        parse_config({"name": "x", "stages": {"sft": {"quantize": "nf4", "lora": None}}})


def test_a_job_that_can_not_be_is_refused_in_one_line(tmp_path):
    run = SimpleNamespace(resolve=str, config=SimpleNamespace(seed=0), name_of=lambda out: out.name)
    rows = [SftRow(prompt=[{"role": "user", "content": "argue"}], completion="the answer is shed")]
    with pytest.raises(UserError, match="^sft: 'probe' is for kind 'classifier'"):
        train(run, SftStage(), "sft", rows, tmp_path / "sft", "base", probe=True)
