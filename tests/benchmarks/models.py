"""What the engine benchmarks run on: a tokenizer trained on the stories, and random models of a chosen size."""

import re
from pathlib import Path

TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
SIZES = {
    # hidden, layers, heads, key-value heads, feed-forward width
    "9M": (256, 6, 4, 4, 768),
    "1B": (2048, 16, 32, 8, 8192),
}


def story_tokenizer(texts, size=8192):
    """A byte-level BPE tokenizer of some texts, without an end token: every speech is as long as it may be."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<|system|>", "<|user|>", "<|assistant|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator((re.sub(r"\s+", " ", text) for text in texts), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", extra_special_tokens=special[1:])
    fast.chat_template = TEMPLATE
    return fast


def random_model(folder: Path, tokenizer, size="9M", seed=0):
    """Save a random Qwen3 with a tokenizer and return the folder as text."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    hidden, layers, heads, kv_heads, inner = SIZES[size]
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=hidden // heads, eos_token_id=None,
        bos_token_id=None, pad_token_id=0, max_position_embeddings=32768, tie_word_embeddings=True,
        initializer_range=0.05,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
