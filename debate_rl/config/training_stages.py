"""Settings of the stages that train debaters and judges, and of the preferences they learn from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from debate_rl.config.judge import JudgeSettings
from debate_rl.errors import UserError
from debate_rl.game.protocol import load_protocol, shipped_protocols
from debate_rl.records import Record
from debate_rl.trainers.common.settings import Lora, Objective
from debate_rl.trainers.grpo.settings import Alarms, Opponents, Rewards


class TrainingStage(Record):
    """What every stage that trains has."""

    lora: Lora | None = Lora()
    """null trains all weights."""
    train: dict[str, Any] = {}
    """Arguments of the TRL or transformers config, passed on unchanged."""
    quantize: Literal["nf4"] | None = None
    """Hold the base's weights in 4 bits while training; needs `lora`."""
    launch: str | None = None
    """accelerate config to launch with; empty trains in this process."""

    @model_validator(mode="after")
    def _trains_an_adapter_in_4_bits(self) -> TrainingStage:
        if self.quantize is not None and self.lora is None:
            raise ValueError("quantize needs lora: 4-bit weights can not be trained; set lora, or quantize null")
        return self


class SftStage(TrainingStage):
    """Supervised finetuning of the debater on transcripts."""

    kind: Literal["sft"] = "sft"
    transcripts: tuple[str, ...] = Field(default=("lab-human", "lab-gpt"), min_length=1)
    """Sources: lab-human, lab-gpt, nyu (all of it), nyu-human, nyu-gpt, khan, instructions, or a .jsonl file of
    transcripts or legs."""
    mix: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Share of each source in the rows, as numbers of any size; empty takes all rows of every source."""
    paths: dict[str, str] = {}
    """Where sources lie, by name; of the nyu ones the default is questions.path."""
    stories: str | None = None
    """QuALITY's folder, for khan, whose release leaves the stories out; empty is questions.path."""
    licences: dict[str, str] = {}
    """Licence of sources that do not say it themselves (a file, instructions), for the data card."""
    limit: int | None = Field(default=None, ge=1)
    """Use at most so many questions' transcripts of each source."""
    rows: int | None = Field(default=None, ge=1)
    """Train on so many rows, drawn by seed; all are built and counted."""
    passage_tokens: int | None = Field(default=None, ge=1)
    """Shorten longer passages of the prompts to about so many tokens: whole paragraphs that hold no quote of the game
    give way to a visible [...], and the data card counts the rows."""
    start: str | None = None
    """Earlier stage whose adapter is trained further."""

    @model_validator(mode="after")
    def _sources_agree(self) -> SftStage:
        for key, named in (("mix", self.mix), ("paths", self.paths), ("licences", self.licences)):
            for name in named:
                if name not in self.transcripts:
                    raise ValueError(f"{key} names {name!r}, which is not among transcripts: {list(self.transcripts)}")
        missing = [name for name in self.transcripts if self.mix and name not in self.mix]
        if missing:
            raise ValueError(f"mix has no share for {missing[0]!r}; give one, or take it out of transcripts")
        twice = next((name for name in self.transcripts if self.transcripts.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"transcripts has {twice!r} twice; give each once (mix sets how much of it there is)")
        return self


class JudgeStage(TrainingStage):
    """Finetuning and calibrating the judge on verdict labels."""

    kind: Literal["judge"] = "judge"
    from_: Literal["self_play", "recorded"] = Field(default="self_play", alias="from")
    """self_play: the players' debates on training questions, and their gold labels. recorded: the human debates of the
    source nyu and their judges' final probabilities, compared with the humans on test stories."""
    players: tuple[str, ...] = ("base", "sft")
    """Whose debates the judge learns from."""
    protocols: tuple[str, ...] = ("debate", "single")
    questions: int = Field(default=200, ge=2)
    """Training questions; a quarter of the stories is held out to calibrate on."""
    calibrate: Literal["temperature", "platt", "isotonic", "none"] = "temperature"
    calibrate_lone: bool = True
    """Calibrate lone speakers (consultancies) apart from debates; else one map serves all protocols."""
    train_attacks: tuple[str, ...] = ()
    """Attacks that the judge learns to see through: it is shown every training game once more with one of these, by
    its sides in turn. Judge by attacks that it has not learnt from."""
    train_copies: int = Field(default=1, ge=1)
    """Times that every game is shown with an attack, each time with the next one of the list."""
    adversarial_rounds: int = Field(default=0, ge=0)
    """After the training: rounds of a search for suffixes against the judge, on stories that it learns from, and of
    further training on a third of its games with what was found."""
    attacks: bool | tuple[str, ...] = False
    """Attacks on the base judge and the finetuned one, on its test debates: true for all, or names of
    judges/attacks/edits.py, such as [suffix_sure, suffix_search, sycophancy]."""
    attack_games: int = Field(default=100, ge=2)
    """Test debates that are attacked, drawn by name; each is judged some 70 times over by either judge."""

    @model_validator(mode="after")
    def _recorded_games_are_as_they_are(self) -> JudgeStage:
        changed = [name for name in _PLAYED if getattr(self, name) != type(self).model_fields[name].default]
        if changed and self.from_ == "recorded":
            raise ValueError(f"{changed[0]} is for from: self_play; recorded games are neither played nor attacked")
        return self

    @field_validator("attacks", "train_attacks")
    @classmethod
    def _known_attacks(cls, names: bool | tuple[str, ...], info: ValidationInfo) -> bool | tuple[str, ...]:
        from debate_rl.judges.attacks.edits import chosen, learnable  # here: most configs have none

        try:
            if isinstance(names, bool) or info.field_name == "attacks":
                chosen(names)
            else:
                learnable(names)
        except UserError as error:
            raise ValueError(str(error)) from error
        return names


_PLAYED = ("players", "protocols", "calibrate_lone", "train_attacks", "train_copies", "adversarial_rounds", "attacks",
           "attack_games")  # fmt: skip
"""Settings of a judge that learns from games which are played for it."""


class PreferencesStage(Record):
    """Speeches to one prompt on training questions, scored by the judge: the rows of DPO."""

    kind: Literal["preferences"] = "preferences"
    method: Literal["best_of_n", "full", "half", "single"] = "best_of_n"
    """best_of_n: each speech against simulated opponents, before the game goes on. Or trees of games, a speech scored
    by the mean verdict of the finished games through it, that branch in every turn of one side (full), in one drawn by
    seed (half), or in the first (single)."""
    player: str = "sft"
    best_of: int = Field(default=4, ge=2)
    """Of best_of_n: candidates for each speech."""
    opponents: int = Field(default=2, ge=0)
    """Of best_of_n: simulated opponents that each candidate meets."""
    opponents_from: tuple[str, ...] = ()
    """Players that speak for the other side: simulated by best_of_n, of trees one really plays, drawn by seed for each
    tree. Empty is the player itself."""
    aggregate: Literal["mean", "min"] = "mean"
    """Over the simulated opponents, or over the finished games: expected or worst case."""
    branches: int = Field(default=2, ge=2)
    """Of trees: speeches at a branching node."""
    flip: bool = True
    """Of trees: one for each side of a question; else for one side, drawn."""
    refine: int = Field(default=0, ge=0)
    """Rounds of critique and refinement of every speech."""
    critic: str | None = None
    """Player whose model criticises; empty is the player itself."""
    questions: int = Field(default=200, ge=1)
    skip: int = Field(default=0, ge=0)
    """Training questions left out before the first, so that another stage can have them."""
    pairs_per_pool: int = Field(default=1, ge=1)
    min_gap: float = Field(default=0.0, ge=0, le=1)
    """Least difference in the judge's probability between chosen and rejected."""
    balance_sides: bool = False
    """Leave out pairs of the side that has more, drawn by their content, until both sides have as many."""
    protocol: str | None = None

    @field_validator("protocol")
    @classmethod
    def _someone_speaks(cls, name: str | None) -> str | None:
        if name in shipped_protocols() and load_protocol(name).turns == 0:
            raise ValueError(f"under {name!r} nobody speaks, so it makes no preferences; choose another")
        return name

    @model_validator(mode="after")
    def _critic_has_work(self) -> PreferencesStage:
        if self.critic is not None and self.refine == 0:
            raise ValueError("a critic needs rounds of refinement; set refine: 1, or leave the critic out")
        return self


class DpoStage(TrainingStage):
    """Preference training of the debater."""

    kind: Literal["dpo"] = "dpo"
    start: str = "sft"
    """Earlier stage whose adapter is trained further and, without `reference`, is the reference."""
    reference: str | None = None
    """Another earlier stage as the reference, such as the first policy of several trainings in a row."""
    preferences: str = "preferences"
    """Stage that made the rows."""
    objective: Objective = Objective()
    share_prompt: bool = False
    """Encode each prompt once for both speeches: the same numbers in about half the time, for models with full
    attention in every layer (Llama, Qwen 2 and 3, Mixtral)."""


class IterationsStage(Record):
    """Generate, judge, train, rate, repeat. NAME.K is the debater after iteration K, NAME the one after the last."""

    kind: Literal["iterations"] = "iterations"
    start: str = "sft"
    """Earlier stage whose debater the first iteration plays and trains."""
    iterations: int = Field(default=2, ge=1)
    preferences: PreferencesStage = PreferencesStage()
    """How each iteration makes its rows; the player is the newest debater."""
    dpo: DpoStage = DpoStage()
    """How each iteration trains, and with what learning rate the first one does."""
    learning_rate_factor: float = Field(default=0.5, gt=0)
    """Learning rate of an iteration over that of the one before (published: 1e-4, then 5e-5)."""
    reference: Literal["last", "start"] = "last"
    """Of the loss: the debater that the iteration starts from, or in every iteration the very first one."""
    opponents: Literal["current", "start"] = "current"
    """Who speaks for the other side in `preferences`: the newest debater or those it names, or in every iteration the
    very first one."""
    fresh_questions: bool = True
    """Each iteration plays on training questions that no other one does, as far as there are enough."""
    pool: tuple[str, ...] = ("base",)
    """Players that every iteration's debater meets on the test questions, besides the start and earlier iterations."""
    questions: int | None = Field(default=None, ge=1)
    """Test questions of the ratings; empty takes all."""
    ridge: float = Field(default=0.1, ge=0)
    """See the tournament's."""
    resamples: int = Field(default=1000, ge=10)

    @model_validator(mode="after")
    def _roles_are_its_own(self) -> IterationsStage:
        """The parts of an iteration name no stages: the iterations do."""
        named = {"preferences.player": self.preferences.player, "dpo.start": self.dpo.start}
        for key, value in named.items():
            if value not in ("sft", self.start):
                raise ValueError(f"{key} is the newest debater in each iteration; set `start` to {value!r} instead")
        if self.dpo.reference is not None or self.dpo.preferences != "preferences":
            raise ValueError("dpo.reference and dpo.preferences are set by the iterations; use `reference`")
        if self.opponents == "start" and self.preferences.opponents_from:
            raise ValueError("opponents: start names the other side; leave out preferences.opponents_from")
        return self

    @model_validator(mode="after")
    def _rate_is_a_number(self) -> IterationsStage:
        """Each iteration's learning rate is computed from it."""
        rate = self.dpo.train.get("learning_rate", 0.0)
        try:
            fine = 0 <= float(rate) < float("inf")
        except (TypeError, ValueError):
            fine = False
        if not fine:
            raise ValueError(f"dpo.train.learning_rate is {rate!r}; give a number such as 1.0e-4")
        return self

    @property
    def pooled(self) -> tuple[str, ...]:
        """Whom all iterations meet: the pool and the start."""
        return self.pool if self.start in self.pool else (*self.pool, self.start)


class WatchSettings(Record):
    """What is measured while an online training goes on."""

    every: int = Field(default=20, ge=1)
    """Steps between two measurements; there is one before the first step and one after the last."""
    questions: int = Field(default=40, ge=2)
    """Training questions kept for it: the last ones, which are not played in training."""
    pool: tuple[str, ...] = ()
    """Fixed players that the policy meets, besides what it starts from."""
    second: str | JudgeSettings | None = None
    """Held-out judge: a judge stage, `base` for the judge model as it is, another model, or settings as of `judge`."""
    alarms: Alarms = Alarms()


class GrpoStage(TrainingStage):
    """Online training: the debater plays, is judged, and learns from what its speeches earned (TRL's GRPO)."""

    kind: Literal["grpo"] = "grpo"
    start: str = "sft"
    """Earlier stage whose debater is trained further; KL (`train.beta`) is taken to it."""
    protocol: str | None = None
    questions: int | None = Field(default=None, ge=1)
    """Training questions that are played; empty takes all but those of `watch`."""
    skip: int = Field(default=0, ge=0)
    """Training questions left out before the first."""
    temperature: float | None = Field(default=None, gt=0)
    """Of the policy and its opponents while it learns; empty is engine.temperature."""
    rewards: Rewards = Rewards()
    opponent: Literal["self", "start", "pool", "players"] = "self"
    """Who speaks for the other side: the current policy (which learns on both), what it started from, past checkpoints
    drawn by rating, or `players`."""
    players: tuple[str, ...] = ()
    """Of opponent players: one is drawn for each question and step."""
    snapshot: int = Field(default=25, ge=1)
    """Of opponent pool: a checkpoint joins every so many steps."""
    spread: float = Field(default=200.0, gt=0)
    """Of opponent pool: a member is drawn e times as often as one rated so many Elo points lower."""
    roles: Literal["both", "A", "B", "correct", "wrong"] = "both"
    """Sides that learn; those of the other ones are played all the same."""
    judge_seconds: float | None = Field(default=None, gt=0)
    """The judge's time in each step; what it has not judged by then earns nothing and is counted."""
    served: Literal["all", "speeches", "none"] = "all"
    """What an engine of kind server answers while the debater learns: speeches and verdicts (it is sent the policy's
    adapter before every step), speeches alone, or nothing, so that the training process holds policy and judge."""
    watch: WatchSettings | None = WatchSettings()
    """Ratings, accuracy of two judges and alarms over steps; null measures nothing."""

    @model_validator(mode="after")
    def _has_opponents(self) -> GrpoStage:
        if (self.opponent == "players") != bool(self.players):
            raise ValueError("opponent: players and players belong together; name at least one player")
        if self.train.get("eval_strategy") is not None:
            raise ValueError("train.eval_strategy is not for online training; set watch")
        return self

    def against(self, players: tuple[Any, ...]) -> Opponents:
        """The opponents, with the players named."""
        return Opponents(kind=self.opponent, players=players, snapshot=self.snapshot, spread=self.spread)
