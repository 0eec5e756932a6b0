"""Token log-probabilities: both heads against a plain forward."""

import pytest
import torch

from debate_rl.trainers.common import logprobs
from debate_rl.trainers.common.logprobs import token_logprobs


@pytest.mark.parametrize("room", [0, 1 << 30])
def test_both_heads_give_the_log_probabilities_of_a_plain_forward(base, monkeypatch, room):
    from transformers import AutoModelForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    monkeypatch.setattr(logprobs, "_LOGITS_LIMIT", room)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    ids = torch.randint(6, 40, (3, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    labels = ids.clone()
    labels[:, :5] = labels[0, 8:] = labels[1, 9:] = -100
    logits = model(input_ids=ids, attention_mask=mask).logits
    expected = torch.log_softmax(logits[:, :-1], -1).gather(2, ids[:, 1:, None])[..., 0]
    expected = expected.masked_fill(labels[:, 1:] == -100, 0)
    best = (logits[:, :-1].argmax(-1) == ids[:, 1:]) & (labels[:, 1:] != -100)
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    found = token_logprobs(model, {"input_ids": ids, "attention_mask": mask}, labels, model.config.vocab_size)
    assert torch.allclose(found.values, expected[:, found.columns - 1], atol=1e-5)
    assert found.values.sum().item() == pytest.approx(expected.sum().item(), abs=1e-4)
    assert torch.equal(found.top1.bool(), best[:, found.columns - 1])
    assert len(found.columns) == 7
    found.values.sum().backward()
    assert model.lm_head.weight.grad.abs().sum() > 0
