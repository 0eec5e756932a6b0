"""A tiny language model with random weights and a tokenizer fitted to a text, for trying a pipeline on long texts.

    python -m debate_rl.data.tiny runs/tiny-model --text ../shared/data/nyu_2023/stories.jsonl

It writes nonsense. Everything else about a run with it is real: prompts, lengths, trainings, verdicts, files.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from debate_rl.records import lines

TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SPECIAL = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")


def _texts(path: Path) -> Iterator[str]:
    """Yield the texts of a file: every string of its JSON lines, or the whole file."""
    if path.suffix != ".jsonl":
        yield path.read_text(encoding="utf-8")
        return
    for _, row in lines(path):
        yield from (value for value in row.values() if isinstance(value, str))


def fit_tokenizer(texts: Iterator[str], vocabulary: int = 8192) -> Any:
    """Fit a byte-level BPE tokenizer with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        show_progress=False,
        # All bytes, so that no text holds a token that the vocabulary lacks.
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL[0],
        eos_token=SPECIAL[1],
        extra_special_tokens=list(SPECIAL[2:]),
        padding_side="left",
    )
    fast.chat_template = TEMPLATE
    return fast


def build(
    out: Path, text: Path, hidden: int = 32, layers: int = 2, positions: int = 16384, seed: int = 0, heads: int = 4
) -> Path:
    """Save a random Llama and its tokenizer.

    Args:
        out: folder to make.
        text: text that the tokenizer is fitted to, JSON lines or plain.
        hidden: width.
        layers: depth.
        positions: longest context in tokens.
        seed: seed of the weights.
        heads: attention heads.

    Raises:
        UserError: the text is missing or malformed.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = fit_tokenizer(_texts(text))
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Build a tiny random model with a tokenizer fitted to a text.")
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--text", type=Path, required=True, help="JSON lines or plain text")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(build(arguments.out, arguments.text, seed=arguments.seed))


if __name__ == "__main__":
    main()
