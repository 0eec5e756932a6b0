"""Models in memory: each is loaded once, and LoRA adapters are switched on their base."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import torch

from debate_rl.engines.chat import end_tokens, turn_marks
from debate_rl.engines.load import context_of, load_adapter, load_network, load_tokenizer
from debate_rl.engines.local.attention import NAME, register
from debate_rl.engines.local.encoding import encode
from debate_rl.engines.local.prefix import Row, Trie, Wave
from debate_rl.engines.number_formats import NF4, Format, computes_in, network_format
from debate_rl.engines.quantized import check_installed, compute_in_float32, has_experts, nf4_options, quantize_experts
from debate_rl.engines.weights import LOADING, check_adapter, check_weights, fingerprint
from debate_rl.errors import UserError
from debate_rl.records import digest

_TRIAL_WINDOW = 4
HELD = "held"
"""Stands for the number format of models that are in memory already."""
if TYPE_CHECKING:
    from debate_rl.engines.grammars import Grammars


@dataclass
class Loaded:
    """A model in memory with its tokenizer and the names of the adapters it holds."""

    model: Any
    tokenizer: Any
    ends: frozenset[int]
    """Token ids that end an answer."""
    marks: tuple[str, ...]
    """Lines by which its template opens a turn, and an answer ends."""
    limit: int
    """Tokens that the model can read."""
    shares: bool
    """Whether rows may share keys and values; otherwise only equal prompts are taken together."""
    adapters: dict[str, str] = field(default_factory=dict)
    """Name of each adapter in the model, by fingerprint."""
    number_format: str = "float32"
    """Number format of its weights; keys and values of one format are of no use to another."""

    @cached_property
    def grammars(self) -> Grammars:
        """Compiles the grammars that answers keep to; made on first use, which takes a second.

        Raises:
            UserError: the tokenizer's tokens can not be spelled.
        """
        from debate_rl.engines.grammars import Grammars  # here: few runs need it

        return Grammars(self.tokenizer, self.model.config.get_text_config().vocab_size, self.ends)


class Networks:
    """Loads models and adapters on first use.

    Args:
        resolve: turns the name of a model or adapter into a path or hub name.
        device: device of all models.
        dtype: number format in which texts are written; "auto" is the checkpoint's, None the fastest.
        revision: revision of hub models.
        judge_dtype: number format in which probabilities are read.
    """

    def __init__(
        self,
        resolve: Callable[[str], str],
        device: torch.device,
        dtype: Format | None,
        revision: str | None,
        judge_dtype: Format = "float32",
    ) -> None:
        self.device = device
        self.loaded: dict[tuple[str, str], Loaded] = {}
        """By name and number format; a model that is held stands under `HELD`, whatever its format."""
        self._resolve = resolve
        self._dtype = dtype
        self._judge_dtype = judge_dtype
        self._hub_revision = revision
        self._fingerprint = cache(fingerprint)
        self._held: dict[str, str] = {}

    def revision(self, model: str, adapter: str | None) -> str:
        """Fingerprint of the weights of a model with its adapter."""
        if model in self._held:
            return digest(["held", model])
        path = self._resolve(model)
        base = self._fingerprint(path)
        formats = [self._format(path, reads) for reads in (False, True)]
        # In another format the same weights give other answers, which a store must not take for these.
        if formats != ["float32", "float32"]:
            base = digest([base, *formats])
        if adapter is None:
            return base
        return digest([base, self._fingerprint(self._resolve(adapter))])

    def load(self, name: str, reads: bool = False) -> Loaded:
        """Return a model, loading it on first use: once, or twice where it writes in one number format and is read in
        another.

        Args:
            name: of the model.
            reads: whether its probabilities are read, else it writes texts.

        Raises:
            UserError: there is no such model, or it has no safetensors weights.
        """
        if name in self._held:
            return self.loaded[name, HELD]
        path = self._resolve(name)
        check_weights(path)
        number_format = self._format(path, reads)
        if (name, number_format) not in self.loaded:
            tokenizer = load_tokenizer(path, self._hub_revision)
            with LOADING, _whole():
                model = self._network(path, number_format)
            self.loaded[name, number_format] = _loaded(model, tokenizer, number_format)
        return self.loaded[name, number_format]

    def rest(self) -> None:
        """Drop the models that were loaded, which are loaded anew on their next use; those that are held stay."""
        self.loaded = {key: loaded for key, loaded in self.loaded.items() if key[1] == HELD}

    def _format(self, path: str, reads: bool) -> str:
        """Number format of a model that is read, or that writes."""
        return network_format(self._judge_dtype if reads else self._dtype, path, self.device.type, reads)

    def _network(self, path: str, number_format: str) -> Any:
        """Load a model onto the device.

        Raises:
            UserError: see `load_network`; or bitsandbytes is missing.
        """
        from transformers import AutoModelForCausalLM

        computed = computes_in(number_format)
        options: dict[str, Any] = {"revision": self._hub_revision}
        in_4_bits = number_format.startswith(NF4)
        experts = in_4_bits and has_experts(path)
        if in_4_bits:
            check_installed("engine.dtype")
            options |= nf4_options(getattr(torch, computed), "cpu" if experts else self.device)
        model = load_network(AutoModelForCausalLM, path, computed, **options)
        if in_4_bits and computed == "float32":
            compute_in_float32(model)
        if experts:
            quantize_experts(model, self.device)
        elif not in_4_bits:  # which are placed as they are loaded
            model = model.to(self.device)
        return model.eval().requires_grad_(False)

    def hold(self, name: str, model: Any, tokenizer: Any) -> None:
        """Serve a model that is in memory already (see `TransformersEngine.hold`)."""
        # Its attention is replaced while it is held; `let_go` puts this one back.
        self._held[name] = model.config._attn_implementation
        self.loaded[name, HELD] = _loaded(model, tokenizer, HELD)

    def let_go(self, name: str) -> None:
        """Forget a held model and restore its own attention."""
        loaded = self.loaded.pop((name, HELD))
        loaded.model.set_attn_implementation(self._held.pop(name))

    @contextlib.contextmanager
    def adapted(self, loaded: Loaded, model: str, adapter: str | None) -> Iterator[Any]:
        """Yield the network with one adapter switched on, or with none.

        Raises:
            UserError: there is no such adapter, or it belongs to another base.
        """
        if adapter is None:
            if not loaded.adapters:
                yield loaded.model
                return
            with loaded.model.disable_adapter():
                yield loaded.model
            return
        path = self._resolve(adapter)
        revision = self._fingerprint(path)
        if revision not in loaded.adapters:
            check_adapter(self._resolve(model), path)
            try:
                self._add_adapter(loaded, path, revision)
            except UserError:
                # A part of the adapter may be in the model: it is loaded anew on its next use.
                self.loaded.pop((model, loaded.number_format))
                raise
        loaded.model.set_adapter(loaded.adapters[revision])
        yield loaded.model

    def _add_adapter(self, loaded: Loaded, adapter: str, revision: str) -> None:
        """Load a LoRA adapter besides those the model has."""
        name = f"a{revision}"
        with LOADING, _whole():
            loaded.model = load_adapter(loaded.model, adapter, name).eval()
        loaded.model.to(self.device).requires_grad_(False)
        loaded.adapters[revision] = name


@contextlib.contextmanager
def _whole() -> Iterator[None]:
    """Load models whole, also during a ZeRO-3 training.

    Under ZeRO-3 transformers divides every model that it loads among the processes. A judge that answers rollouts is
    asked by one process at a time, so it must be whole.
    """
    from transformers.integrations import deepspeed

    if not deepspeed.is_deepspeed_zero3_enabled():
        yield
        return
    training = deepspeed._hf_deepspeed_config_weak_ref()
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed.set_hf_deepspeed_config(training)


def _loaded(model: Any, tokenizer: Any, number_format: str) -> Loaded:
    """A model with what the engine needs to know about it."""
    limit = context_of(model.config) or 1 << 30
    ends = end_tokens(tokenizer, model.generation_config)
    return Loaded(model, tokenizer, ends, turn_marks(tokenizer), limit, can_share(model), number_format=number_format)


def device_of(name: str | None) -> torch.device:
    """The device of a name; None takes a GPU if there is one, else the CPU.

    Raises:
        UserError: there is no such device.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"engine.device {name!r} can not be used ({first}); choose cpu, cuda or cuda:N") from error
    return device


def can_share(model: Any) -> bool:
    """Whether a model's rows may share keys and values; if so, switch it to the shared attention.

    Every layer must attend to all earlier tokens or to a window of them, at positions that do not depend on the row's
    length. Then a small trial must give the logits of plain calls, which exposes models that read positions or masks in
    their own way.
    """
    text = model.config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    if not kinds <= {"full_attention", "sliding_attention"}:
        return False
    rope = getattr(text, "rope_parameters", None) or {}
    # Models whose kinds of layers turn positions differently have the parameters of each kind (Gemma 3).
    rope_types = [rope.get("rope_type"), *(rope[kind].get("rope_type") for kind in kinds if kind in rope)]
    # These two rescale all positions of a row that grows long.
    if "dynamic" in rope_types or "longrope" in rope_types or not model._supports_attention_backend:
        return False
    register()
    original = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    with _narrow_windows(model, text):
        agrees = model.config._attn_implementation == NAME and _agrees(model, text.vocab_size)
    if not agrees:
        model.set_attn_implementation(original)
    return agrees


@contextlib.contextmanager
def _narrow_windows(model: Any, text: Any) -> Iterator[None]:
    """Let layers with a window see `_TRIAL_WINDOW` positions, so that the few tokens of a trial do not fit into it."""
    places = [place for place in (text, *model.modules()) if isinstance(getattr(place, "sliding_window", None), int)]
    windows = [place.sliding_window for place in places]
    for place in places:
        place.sliding_window = _TRIAL_WINDOW
    try:
        yield
    finally:
        for place, window in zip(places, windows, strict=True):
            place.sliding_window = window


@torch.inference_mode()
def _agrees(model: Any, vocabulary: int) -> bool:
    """Whether shared and plain passes over three short rows give the same logits."""
    ids = [(7 * position + 3) % vocabulary for position in range(16)]
    # Three rows that share a beginning and part at different lengths.
    rows = [Row((*ids[:6], *ids[6 + number : 9 + 2 * number]), 2) for number in range(3)]
    trie = Trie()
    wave = Wave((0, 1, 2), tuple(trie.add(None, row) for row in rows))
    try:
        shared, _ = encode(model, trie, rows, wave)
    except (RuntimeError, TypeError, ValueError):
        return False  # its attention has a feature that is not supported here: rows are taken one at a time
    plain = [model(input_ids=torch.tensor([row.tokens], device=model.device)).logits[0, -2:] for row in rows]
    difference = max(float((a - b).abs().max()) for a, b in zip(shared, plain, strict=True))
    largest = max(1.0, max(float(logits.abs().max()) for logits in plain))
    tolerance = 1e-4 if plain[0].dtype == torch.float32 else 0.05
    return difference <= tolerance * largest
