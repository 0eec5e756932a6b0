"""How large a model is: read from its config.json, or known here for well-known models, as hubs may be out of reach."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import Field

from debate_rl.records import Record


class Shape(Record):
    """The sizes of a decoder with gated feed-forward layers, as Llama, Qwen 2 and 3, Mistral and Mixtral are.

    Example (Llama-3-8B):
        Shape(layers=32, hidden=4096, intermediate=14336, heads=32, kv_heads=8, head_size=128, vocabulary=128256)
    """

    layers: int
    hidden: int
    intermediate: int
    """Inner width of one feed-forward network; in a mixture, of one expert."""
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    positions: int | None = None
    """Longest sequence that the model can read, in tokens."""
    experts: int = Field(default=1, ge=1)
    active: int = Field(default=1, ge=1)
    """Experts that each token passes through."""
    tied: bool = False
    """Whether the head is the embedding."""

    @property
    def widths(self) -> tuple[int, int]:
        """Widths of a layer's queries and of its keys: heads x size, key heads x size."""
        return self.heads * self.head_size, self.kv_heads * self.head_size

    @property
    def attention(self) -> list[tuple[int, int]]:
        """(in, out) of the linear layers of one attention: queries, keys, values, output."""
        queries, keys = self.widths
        return [(self.hidden, queries), (self.hidden, keys), (self.hidden, keys), (queries, self.hidden)]

    @property
    def expert(self) -> list[tuple[int, int]]:
        """(in, out) of the linear layers of one feed-forward network: gate, up, down."""
        up = (self.hidden, self.intermediate)
        down = (self.intermediate, self.hidden)
        return [up, up, down]

    @property
    def layer(self) -> int:
        """Weights of one layer's matrices: attention, experts and, in a mixture, their router."""
        router = self.hidden * self.experts if self.experts > 1 else 0
        return _count(self.attention) + self.experts * _count(self.expert) + router

    @property
    def embedding(self) -> int:
        """Weights of embedding and head."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        """All weights: matrices, embedding and head, two norms a layer and one at the end."""
        return self.layers * (self.layer + 2 * self.hidden) + self.embedding + self.hidden

    @property
    def used(self) -> int:
        """Weights that a token is multiplied with: all but the embedding and the experts it does not visit."""
        idle = (self.experts - self.active) * _count(self.expert)
        return self.layers * (self.layer - idle) + self.vocabulary * self.hidden

    @property
    def adapted(self) -> list[tuple[int, int]]:
        """(in, out) of the linear layers of one layer that LoRA's `all-linear` matches; in a mixture the router too."""
        # Experts are tables of three dimensions in transformers 5, not linear layers: `lora` counts them apart.
        if self.experts > 1:
            return [*self.attention, (self.hidden, self.experts)]
        return self.attention + self.expert

    def lora(self, rank: int, experts: bool = True) -> int:
        """Weights of an adapter on all linear layers: rank x (in + out) of each matrix (Hu et al. 2021, section 4).

        Args:
            rank: of the adapter.
            experts: whether it is on a mixture's experts as well; peft adapts them where they are not in 4 bits.
        """
        ends = sum(inputs + outputs for inputs, outputs in self.adapted)
        if experts and self.experts > 1:
            # Gate and up are one table there, and peft gives it twice the rank.
            gate_and_up = 2 * (self.hidden + 2 * self.intermediate)
            down = self.intermediate + self.hidden
            ends += self.experts * (gate_and_up + down)
        return self.layers * rank * ends


def _count(matrices: list[tuple[int, int]]) -> int:
    """Weights of some matrices."""
    return sum(inputs * outputs for inputs, outputs in matrices)


_LLAMA3 = Shape(
    layers=32,
    hidden=4096,
    intermediate=14336,
    heads=32,
    kv_heads=8,
    head_size=128,
    vocabulary=128256,
    positions=8192,
)
_LLAMA2 = Shape(
    layers=40,
    hidden=5120,
    intermediate=13824,
    heads=40,
    kv_heads=40,
    head_size=128,
    vocabulary=32000,
    positions=4096,
)
_MIXTRAL = Shape(
    layers=32,
    hidden=4096,
    intermediate=14336,
    heads=32,
    kv_heads=8,
    head_size=128,
    vocabulary=32000,
    positions=32768,
    experts=8,
    active=2,
)
_QWEN3 = Shape(
    layers=36,
    hidden=4096,
    intermediate=12288,
    heads=32,
    kv_heads=8,
    head_size=128,
    vocabulary=151936,
    positions=40960,
)
KNOWN = {
    "meta-llama-3-8b": _LLAMA3,
    "meta-llama-3-8b-instruct": _LLAMA3,
    "llama-3-8b-instruct-262k": _LLAMA3.model_copy(update={"positions": 262144}),
    "llama-2-13b-hf": _LLAMA2,
    "llama-2-13b-chat-hf": _LLAMA2,
    "llama-2-13b-chat-longlora-32k-sft": _LLAMA2.model_copy(update={"vocabulary": 32001, "positions": 32768}),
    "mixtral-8x7b-v0.1": _MIXTRAL,
    "mixtral-8x7b-instruct-v0.1": _MIXTRAL,
    "qwen3-8b": _QWEN3,
    "qwen3-14b": _QWEN3.model_copy(update={"layers": 40, "hidden": 5120, "intermediate": 17408, "heads": 40}),
    "qwen3-32b": _QWEN3.model_copy(update={"layers": 64, "hidden": 5120, "intermediate": 25600, "heads": 64}),
}
"""Published shapes, by the model's name in lower case, without its owner."""


_KEYS = ("num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size", "num_attention_heads")
"""What a config has to state; a recurrent model such as Mamba has no attention heads."""


def shape_of(model: str) -> Shape | None:
    """The shape of a model folder, or of a hub name in `KNOWN`; None where it is neither.

    Example:
        >>> shape_of("mistralai/Mixtral-8x7B-Instruct-v0.1").parameters
        46702792704
    """
    config = Path(model) / "config.json"
    if config.is_file():
        tree = json.loads(config.read_text(encoding="utf-8"))
        return _from_config(tree.get("text_config") or tree)
    return KNOWN.get(model.rstrip("/").rpartition("/")[2].lower())


def _from_config(config: dict[str, Any]) -> Shape | None:
    """The shape that a model's config states; None for another kind of model."""
    if any(config.get(key) is None for key in _KEYS):
        return None
    heads = config["num_attention_heads"]
    return Shape(
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        # In Qwen's mixtures `intermediate_size` is the width of dense layers, several times an expert's.
        intermediate=config.get("moe_intermediate_size") or config["intermediate_size"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_size=config.get("head_dim") or config["hidden_size"] // heads,
        vocabulary=config["vocab_size"],
        positions=config.get("max_position_embeddings"),
        # The Mixtral family says `num_local_experts`, the Qwen family `num_experts`.
        experts=config.get("num_local_experts") or config.get("num_experts") or 1,
        active=config.get("num_experts_per_tok") or 1,
        tied=bool(config.get("tie_word_embeddings")),
    )
