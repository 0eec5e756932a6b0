"""Settings above the stages: questions, models, engine, protocol, hardware and tracking.

The text under a field is its help.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from debate_rl.engines.number_formats import Format
from debate_rl.engines.server.budget import Price
from debate_rl.engines.server.settings import ServerSettings, Software
from debate_rl.game.protocol import Protocol, load_protocol, read_protocol
from debate_rl.records import Record

Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""A seed that NumPy, PyTorch and servers all take."""


class Questions(Record):
    """Where the questions come from and how many are used of each split."""

    source: Literal["lab", "quality", "nyu", "sciq", "word_problems", "file"] = "lab"
    """Where questions come from: generated, a published data set, or a file of your own."""
    path: str | None = None
    """File or folder of the source; what is generated needs none, and for sciq none takes the hub's."""
    family: str = "whereabouts"
    """Family of lab stories."""
    knobs: dict[str, Any] = {}
    """Knobs of the lab family, such as the number of moves; or of word problems: least_steps, most_steps, passage."""
    hard_only: bool = False
    """Take only questions marked difficult (QuALITY)."""
    min_passage_words: int = Field(default=1, ge=0)
    """Shortest support of source sciq, in words; questions with less are left out and counted. 0 keeps all."""
    human: str | None = None
    """Human debates (as source nyu) whose stories no test question may be about; known by id, title or text."""
    train: int = Field(default=400, ge=1)
    """Questions for transcripts, preferences and judge training."""
    test: int = Field(default=80, ge=1)
    """Questions for tournaments and judge accuracy; their stories are in no other split."""
    seed: Seed | None = None
    """Seed of the test questions and the weak-to-strong items; empty takes the config's seed. A study over seeds keeps
    it the same for all of them; the other questions follow each run's own seed."""


class Models(Record):
    """Model of each role: a lab model, a library model (`debate-rl models list`), a folder or a hub name."""

    debater: str = "lab-base"
    """Plays, and is trained by sft, dpo and grpo stages."""
    judge: str = "lab-base"
    """Decides; a judge stage finetunes it."""
    weak: str = "lab-small"
    """The supervisors of weak-to-strong stages."""
    strong: str = "lab-base"
    """The student of weak-to-strong stages, and its ceiling."""
    template: Literal["plain"] | None = None
    """plain: a chat template of `User:` and `Assistant:` for models that have none, such as base models."""

    def by_role(self) -> dict[str, str]:
        """Name of the model of each role."""
        return {"debater": self.debater, "judge": self.judge, "weak": self.weak, "strong": self.strong}


class BudgetSettings(Record):
    """What a run may spend at a server; it stops before it would pass that, and what is finished is kept."""

    tokens: int | None = Field(default=None, ge=1)
    """Tokens of prompts and answers together."""
    money: float | None = Field(default=None, gt=0)
    """In the currency of `prices`."""


class EngineSettings(Record):
    """How models are run."""

    model_config = ConfigDict(hide_input_in_errors=True)  # a key or password typed into the wrong field stays unsaid

    kind: Literal["transformers", "server"] = "transformers"
    """transformers: in this process. server: any OpenAI-compatible endpoint; trainings still run here."""
    url: str | None = None
    """Address of a server, for example http://localhost:8000/v1; replicas stand behind one url."""
    key_env: str | None = None
    """Environment variable that holds the server's key, for example OPENAI_API_KEY; empty sends none."""
    concurrency: int = Field(default=16, ge=1)
    """Requests to a server under way at a time."""
    timeout: float = Field(default=120.0, gt=0)
    """Seconds without a byte from a server until a try is given up."""
    retries: int = Field(default=5, ge=0)
    """Further tries at a server that is busy or does not answer."""
    refused: dict[str, tuple[Literal["max_tokens", "temperature", "top_p", "seed", "stop", "n"], ...]] = {}
    """Request fields that a server's model does not take: {gpt-5: [max_tokens, temperature, top_p]}; what is not named
    here is learnt from its first refusal. Without max_tokens, max_completion_tokens is sent."""
    software: Software | None = None
    """What the server runs. Fields that OpenAI's API does not have are sent as it calls them: the opening of players,
    the grammar of their quotes, and their repetition penalty. Empty has none of these."""
    load_adapters: bool = False
    """Have a vLLM server load adapters that it lacks; it must see their folders, and allow it."""
    budget: BudgetSettings = BudgetSettings()
    """Limit on what a server is asked for; see below."""
    prices: dict[str, Price] = {}
    """Prices of a server's models for a million tokens: {gpt-4o-mini: {prompt: 0.15, new: 0.60}}; `*` is all others."""
    device: str | None = None
    """cpu, cuda, cuda:1...; empty takes a GPU where there is one."""
    dtype: Format | None = None
    """Number format in which debaters write; auto is the checkpoint's. Empty takes the fastest: 16 bits for models of
    50 million weights or more where the machine computes in them, else float32 on a CPU. nf4 holds their weights in 4
    bits, as trainings with `quantize: nf4` do, and computes in the fastest."""
    judge_dtype: Format = "float32"
    """Number format of models whose probabilities are read: judges, supervisors, students. In 16 bits
    verdicts are noisy, though the last layer stays in float32. nf4 holds their weights in 4 bits and computes in
    float32. A model that writes in another one is loaded twice."""
    batch_tokens: int = Field(default=16384, ge=1)
    """Tokens in memory at once; lower it if memory runs out."""
    cache_tokens: int = Field(default=32768, ge=0)
    """Tokens of prompts kept in memory for later rounds, beside those. 0 keeps none between calls, and then a run that
    was stopped ends the same to the last bit, not only to rounding."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of PyTorch; empty keeps its own choice (OMP_NUM_THREADS)."""
    temperature: float = Field(default=0.5, ge=0)
    """Sampling temperature of all debaters."""
    reuse_opponents: bool = False
    """Best-of-N players simulate the other side by the draws that its own speech is chosen from: fewer texts, but the
    choice is then made against what the other side may really say."""
    revision: str | None = None
    """Revision of models from the hub; of a server, a name for the weights behind its url, which else is the url."""

    @field_validator("url", mode="before")
    @classmethod
    def _is_one_url(cls, url: Any) -> Any:
        if isinstance(url, list | tuple):
            raise ValueError(
                "give one url, not a list: replicas belong to the server (vLLM's data parallelism, or its router)"
            )
        return url

    @field_validator("url")
    @classmethod
    def _is_url(cls, url: str | None) -> str | None:
        from debate_rl.engines.server.endpoint import url_fault  # urllib3 only where a server is asked

        fault = url_fault(url) if url else None
        if fault is not None:
            raise ValueError(fault)
        return url or None

    @field_validator("key_env")
    @classmethod
    def _is_name(cls, name: str | None) -> str | None:
        from debate_rl.engines.server.endpoint import key_env_fault

        fault = None if name is None else key_env_fault(name)
        if fault is not None:
            raise ValueError(fault)
        return name

    @model_validator(mode="after")
    def _server_has_url(self) -> EngineSettings:
        if (self.kind == "server") != (self.url is not None):
            raise ValueError("kind: server and url belong together; set both, or neither")
        return self

    def server(self) -> ServerSettings:
        """The server and how it is asked, where the kind is server."""
        return ServerSettings(
            url=self.url or "",
            key_env=self.key_env,
            concurrency=self.concurrency,
            retries=self.retries,
            timeout=self.timeout,
            deployed=self.revision,
            software=self.software,
            load_adapters=self.load_adapters,
            refused={name: tuple(fields) for name, fields in self.refused.items()},
        )


class Hardware(Record):
    """The machine that a config is meant for: what does not fit is refused before anything runs."""

    card: str | float = "h100-80gb"
    """Name of a GPU, or its GiB (`debate_rl.trainers.common.memory.CARDS`)."""
    cards: int = Field(default=1, ge=1)
    """Processes of every training that has a `launch`, one for each card."""


class Tracking(Record):
    """Weights & Biases."""

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """auto: online where a key is set and the server answers, else offline."""
    project: str = "debate-rl"
    """Project of Weights & Biases."""
    entity: str | None = None
    """Team or user of Weights & Biases; empty takes the default of the account."""
    group: str | None = None
    """Stands before the run's name, and W&B shows its runs together; a study puts its own name here for the runs of its
    seeds."""
    job_type: str | None = Field(default=None, min_length=1, max_length=64)
    """W&B's job type, such as train or pilot."""
    tags: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = ()
    """W&B's tags."""
    notes: str | None = None
    """W&B's notes: what this run is for."""
    artifacts: bool = True
    """Log debates, rows, adapters and the page as artifacts; false keeps them on this machine."""


class ProtocolSettings(Record):
    """The game of every stage that does not name another, and what changes in every protocol."""

    name: str = "debate"
    """A shipped protocol or a YAML file."""
    turns: int | None = None
    """Turns of this protocol. In other protocols each side speaks as often, unless they have a fixed shape (claim)."""
    max_new_tokens: int | None = None
    """Longest speech, in tokens; empty takes the protocol's own."""
    max_words: int | None = None
    """Longest speech, in words, as the prompt asks for; empty asks for none."""
    near_quotes: float | None = None
    """Least similarity, of 100, of a quote that counts as near."""
    scratchpad: Literal["none", "private", "public"] | None = None
    """Whether speakers think first between scratchpad tags, and who reads it."""
    identities: Literal["hidden", "shown"] | None = None
    """shown: players are named to each other and the judge. hidden: they are not."""
    needs_passage: bool | None = None
    """Whether questions without a passage are refused."""
    prompts: str | None = None
    """Prompt set of every protocol: default, small (models under a billion parameters), lab, or a folder."""
    passage_tokens: int | None = Field(default=None, ge=1)
    """Most tokens of a passage in prompts, by the debater's tokenizer (else 1.3 a word): of longer ones every seat and
    training row shows the paragraphs nearest to question and answers. Quotes are checked against the whole passage."""

    def load(self, name: str | None = None) -> Protocol:
        """The protocol of this name (else the default one) with the changes applied.

        `turns` is of the default protocol. In every other one each side speaks as often as in that, where its turns are
        whole passes of its order; a shape of its own stays (claim: A, B, A), and so does the most that market-making
        may take.
        """
        changes = self.model_dump(exclude_none=True, exclude={"name", "turns", "passage_tokens"})
        # Not `load_protocol` yet: whether the judge can ask questions depends on the turns.
        protocol = read_protocol(name or self.name, **changes)
        if self.turns is None or protocol.turns == 0:
            return load_protocol(name or self.name, **changes)
        if name in (None, self.name):
            return load_protocol(self.name, turns=self.turns, **changes)
        if protocol.calls == "rejected" or protocol.turns % len(protocol.order):
            return load_protocol(name or self.name, **changes)
        default = read_protocol(self.name)
        # Where the judge calls one side a turn, two turns are a pass of both sides.
        turns_per_pass = 2 if default.calls == "rejected" else len(default.order)
        passes = math.ceil(self.turns / turns_per_pass)
        return load_protocol(name or self.name, turns=passes * len(protocol.order), **changes)
