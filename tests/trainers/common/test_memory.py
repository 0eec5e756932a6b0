"""The memory that is estimated against the memory that real models, optimizers and graphs hold."""

import pytest
import torch

from debate_rl.errors import UserError
from debate_rl.trainers.common.memory import (
    CARDS,
    GIB,
    OVERHEAD,
    Training,
    card_of,
    hours,
    layer_bytes,
    memory,
    refuse,
    sharding_of,
    shortfall,
)
from debate_rl.trainers.common.model_shapes import KNOWN, shape_of
from debate_rl.trainers.common.settings import Lora

SIZES = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4,
         "num_key_value_heads": 2, "vocab_size": 300, "max_position_embeddings": 512}  # fmt: skip
LLAMA = KNOWN["llama-3-8b-instruct-262k"]


def model(kind="llama", **fields):
    from transformers import AutoConfig, AutoModelForCausalLM

    more = {"num_local_experts": 4, "num_experts_per_tok": 2} if kind == "mixtral" else {}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SIZES, **more, **fields}))


def saved_shape(found, folder):
    found.config.save_pretrained(folder)
    return shape_of(str(folder))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", ["llama", "mixtral"])
def test_weights_and_adapters_are_counted_exactly(tmp_path, kind, tied):
    from peft import get_peft_model

    found = model(kind, tie_word_embeddings=tied)
    shape = saved_shape(found, tmp_path)
    assert shape.parameters == sum(p.numel() for p in found.parameters())
    adapted = get_peft_model(found, Lora(r=4).config("CAUSAL_LM"))
    assert shape.lora(4) == sum(p.numel() for p in adapted.parameters() if p.requires_grad)


def test_published_models_have_their_published_numbers_of_weights():
    counts = {"meta-llama-3-8b": 8_030_261_248, "llama-2-13b-hf": 13_015_864_320, "mixtral-8x7b-v0.1": 46_702_792_704}
    assert {name: KNOWN[name].parameters for name in counts} == counts
    assert KNOWN["mixtral-8x7b-v0.1"].used == pytest.approx(12.75e9, rel=0.01)
    assert shape_of("Qwen/Qwen3-8B").parameters == pytest.approx(8_190_735_360, rel=1e-5)  # but for its small norms
    assert shape_of("nobody/unknown-7b") is None


@pytest.mark.parametrize("rank", [None, 8])
def test_weights_gradients_and_optimizer_take_what_a_real_step_leaves(tmp_path, rank):
    from peft import get_peft_model

    found = model()
    shape = saved_shape(found, tmp_path)
    if rank:
        found = get_peft_model(found, Lora(r=rank).config("CAUSAL_LM"))
    trained = [p for p in found.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    ids = torch.arange(20)[None]
    found(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    size = lambda tensors: sum(t.numel() * t.element_size() for t in tensors)  # noqa: E731
    moments = [v for state in optimizer.state.values() for v in state.values() if v.dim()]
    need = memory(Training(kind="sft", shape=shape, prompt=10, speech=10, lora=rank, half=False))
    assert need.weights + need.adapter == size(found.parameters())
    assert need.gradients == size(p.grad for p in trained)
    assert need.optimizer == size(moments)


def attends_in_bfloat16():
    """Whether this build of PyTorch attends in bfloat16 here: with its kernels lowered by hand it may refuse to."""
    heads = torch.zeros(1, 2, 64, 32, dtype=torch.bfloat16)
    try:
        torch.nn.functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True)
    except RuntimeError:
        return False
    return True


def kept_for_backward(found, ids):
    """Bytes of a forward pass that its backward will read, each storage once, weights left out."""
    weights, kept = {p.untyped_storage().data_ptr() for p in found.parameters()}, {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=next(found.parameters()).dtype == torch.bfloat16):
            out = found(input_ids=ids).last_hidden_state
        total = sum(storage.nbytes() for storage in kept.values())
    del out
    return total


@pytest.mark.parametrize(("rank", "heads"), [(None, 4), (None, 2), (8, 4)])
@pytest.mark.parametrize("half", [False, True])
def test_activations_are_near_what_autograd_keeps(tmp_path, rank, heads, half):
    from peft import get_peft_model

    if half and not attends_in_bfloat16():
        pytest.skip("no attention in bfloat16 with these CPU kernels")
    wide = {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 6, "num_key_value_heads": heads}
    found = model(**wide)
    shape = saved_shape(found, tmp_path)
    if half:
        found = found.to(torch.bfloat16)
    if rank:
        found = get_peft_model(found, Lora(r=rank).config("CAUSAL_LM"))
        found.enable_input_require_grads()
    kept = kept_for_backward(found.get_base_model().model if rank else found.model, torch.arange(256)[None])
    t = Training(kind="sft", shape=shape, prompt=200, speech=56, lora=rank, half=half, checkpointing=False)
    estimated = memory(t).activations
    assert estimated == 6 * 256 * layer_bytes(t)
    print(f"\nactivations, rank {rank}, {heads} key heads, bfloat16 {half}: kept / estimated {kept / estimated:.3f}")
    assert 0.75 < kept / estimated < 1.2


def test_shards_and_checkpoints_take_what_they_should():
    full = Training(kind="sft", shape=LLAMA, prompt=7000, speech=300)
    spread = {kind: memory(full.model_copy(update={"sharding": kind, "processes": 8})) for kind in ("zero2", "zero3")}
    whole = memory(full)
    assert spread["zero2"].optimizer == whole.optimizer / 8 == spread["zero3"].optimizer
    assert spread["zero2"].weights == whole.weights
    assert spread["zero3"].weights == whole.weights / 8 + 2 * LLAMA.layer
    kept = memory(full.model_copy(update={"checkpointing": False})).activations
    assert kept > 5 * whole.activations
    dpo = Training(kind="dpo", shape=LLAMA, prompt=7000, speech=300, lora=64, reference="adapter")
    shared = memory(dpo.model_copy(update={"share_prompt": True}))
    assert shared.activations < 0.6 * memory(dpo).activations
    assert memory(dpo).reference == 4 * LLAMA.lora(64)
    assert OVERHEAD < shared.total < memory(dpo).total


def test_what_does_not_fit_is_refused_with_changes_that_make_it_fit():
    full = Training(kind="sft", shape=LLAMA, prompt=7000, speech=300, batch=4)
    with pytest.raises(UserError) as error:
        refuse(full, card_of("H100-80GB"), "stages.sft")
    line = str(error.value)
    assert line.startswith("stages.sft: needs about 1") and "GiB more than h100-80gb" in line
    assert line.endswith("set lora.r 64 in place of training every weight")
    assert "\n" not in line
    with pytest.raises(UserError, match="set .*batch_size 1 .*, lora.r 64 in place"):
        refuse(full, card_of(24), "stages.sft")
    with pytest.raises(UserError, match="take a larger card, a smaller model or shorter rows"):
        refuse(full, card_of(4), "stages.sft")
    refuse(full.model_copy(update={"batch": 1, "lora": 64, "quantize": "nf4"}), card_of(24), "stages.sft")
    with pytest.raises(UserError, match="rows of about 9,000 tokens are longer than the model's 8,192"):
        short = KNOWN["meta-llama-3-8b"]
        refuse(Training(kind="sft", shape=short, prompt=8700, speech=300, lora=8), CARDS["h200-141gb"], "stages.sft")
    with pytest.raises(UserError, match="did you mean 'h100-80gb'"):
        card_of("h100-80")


def test_a_container_s_limit_counts_without_its_copies_of_files(tmp_path, monkeypatch):
    from debate_rl.trainers.common import memory as room

    monkeypatch.setattr(room, "_GROUP", tmp_path)
    unlimited = room.machine().gib
    (tmp_path / "memory.max").write_text("max\n")
    assert room.machine().gib == pytest.approx(unlimited, rel=0.5)
    (tmp_path / "memory.max").write_text(f"{1 << 20}\n")
    (tmp_path / "memory.current").write_text(f"{3 << 20}\n")
    (tmp_path / "memory.stat").write_text(f"anon 1\nactive_file {1 << 20}\ninactive_file {1 << 20}\n")
    import psutil

    assert room.machine().gib <= 1.2 * psutil.Process().memory_info().rss / GIB


def test_on_a_cpu_the_advice_is_about_memory_here():
    long = Training(kind="sft", shape=LLAMA, prompt=7000, speech=300, lora=16, half=False, on_cpu=True)
    with pytest.raises(UserError) as error:
        refuse(long, card_of(38), "stages.sft")
    line = str(error.value)
    assert (
        line.startswith("stages.sft: needs about 3")
        and "38.0 GiB of memory are free here; set train.max_length" in line
    )
    with pytest.raises(UserError, match="take a larger machine, a smaller model or shorter rows"):
        refuse(long, card_of(8), "stages.sft")


def test_hours_follow_from_the_operations_of_a_token():
    t = Training(kind="sft", shape=LLAMA, prompt=1, speech=0, checkpointing=False)
    second = 312e12 * 0.35 / (6 * LLAMA.used)
    assert hours(t, second * 3600, CARDS["a100-80gb"]) == pytest.approx(1, rel=1e-3)
    assert hours(t, 1e9, card_of(80)) is None
    assert hours(t.model_copy(update={"processes": 8}), 8e9, CARDS["a100-80gb"]) == pytest.approx(
        hours(t, 1e9, CARDS["a100-80gb"])
    )


def test_shipped_launches_are_known_for_what_they_spread():
    found = {name: sharding_of(f"configs/accelerate/{name}.yaml")[0] for name in ("single", "multi_gpu", "fsdp2")}
    found |= {name: sharding_of(f"configs/accelerate/{name}.yaml")[0] for name in ("zero2", "zero3")}
    assert found == {"single": "none", "multi_gpu": "none", "fsdp2": "fsdp", "zero2": "zero2", "zero3": "zero3"}
    assert sharding_of(None) == ("none", 1)
    assert shortfall(Training(kind="sft", shape=LLAMA, prompt=1, speech=1), card_of(1000)) < 0 < GIB


def test_a_config_for_one_process_that_names_more_is_refused(tmp_path):
    (tmp_path / "one.yaml").write_text("distributed_type: 'NO'\nnum_processes: 2\n")
    with pytest.raises(UserError, match="trains in one process, and 2 are asked for"):
        sharding_of(str(tmp_path / "one.yaml"))
