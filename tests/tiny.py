"""Tiny models built on the spot: a word-level tokenizer with a chat template, and a small random Llama."""

from pathlib import Path

WORDS = [f"w{i}" for i in range(200)]
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|> {{ message.content }} <|end|> {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tiny_tokenizer(words=WORDS, template=TEMPLATE):
    """A tokenizer that cuts at white space."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<unk>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    vocabulary = {word: index for index, word in enumerate([*special, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="<|end|>",
        extra_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
    )  # fmt: skip
    fast.chat_template = template
    return fast


def tiny_model(
    folder: Path, seed: int = 0, hidden: int = 32, spread: float = 0.2, words=WORDS, positions: int = 512, kv_heads=None
):
    """Save a random two-layer Llama with its tokenizer and return the folder as text."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer(words)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=kv_heads, max_position_embeddings=positions, bos_token_id=None,
        eos_token_id=2, pad_token_id=0, initializer_range=spread,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def tiny_gemma(folder: Path, window: int = 5):
    """Save a random Gemma 3, whose layers in turn see a window and everything before, and return the folder as text."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, query_pre_attn_scalar=8, sliding_window=window, max_position_embeddings=512,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"], bos_token_id=None, eos_token_id=2,
        pad_token_id=0, initializer_range=0.2,
    )  # fmt: skip
    Gemma3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def tiny_adapter(base: str, folder: Path, seed: int = 1, spread: float = 0.3):
    """Save a random LoRA adapter of a model (not the zero one that peft starts from)."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=4, target_modules="all-linear"))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, spread)
    model.save_pretrained(folder)
    return str(folder)
