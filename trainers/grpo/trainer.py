"""Online training on TRL's GRPOTrainer: the policy plays, is judged, and learns from its rewards.

This module holds everything that depends on TRL's experimental hooks (`rollout_func`, its extra fields, `env_mask`,
rewards of None); tests/trainers/test_trl_contract.py pins their behaviour. A row of the data set is the key of a group
(`groups.GroupKey`). The groups of a question are neighbours, so that both sides of a game are in one batch.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from datasets import Dataset
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import GRPOTrainer
from trl.trainer.utils import RepeatSampler

from debate_rl.engines.chat import closing_ids, end_tokens
from debate_rl.engines.local.engine import TransformersEngine
from debate_rl.engines.opening import request_ids
from debate_rl.engines.request import Request
from debate_rl.errors import UserError
from debate_rl.game.question import Question
from debate_rl.players.debater import Debater
from debate_rl.records import read
from debate_rl.trainers.common.settings import Job
from debate_rl.trainers.grpo.custom import Payer
from debate_rl.trainers.grpo.evaluation import CurveCallback, Watcher
from debate_rl.trainers.grpo.groups import GroupKey, block_of, check_rows, online_of, read_group_key
from debate_rl.trainers.grpo.opponent_pool import League, draw_player
from debate_rl.trainers.grpo.policy import PatientJudge, at_the_table, save_adapter, whole
from debate_rl.trainers.grpo.rewards import TERMS
from debate_rl.trainers.grpo.role_baselines import RoleBaselines
from debate_rl.trainers.grpo.selfplay import Participants, RolloutResult, rollout
from debate_rl.trainers.grpo.serving import Serving
from debate_rl.trainers.grpo.settings import Online


class Blocks(Sampler[int]):
    """Sampler of row indices: questions in TRL's order, each with all its groups, each group `copies` times.

    Args:
        questions: TRL's sampler, over indices of questions.
        block: groups per question.
        copies: G, rows per group.
    """

    def __init__(self, questions: RepeatSampler, block: int, copies: int) -> None:
        self.questions = questions
        self.block = block
        self.copies = copies
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; accelerate calls this."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Yield the row indices of an epoch."""
        if self.questions.shuffle:
            # The order depends on the epoch's number alone, so that a resumed training finds it again.
            self.questions.generator.manual_seed((self.questions.seed or 0) + self.epoch)
        for question in self.questions:
            first_row = question * self.block
            for row in range(first_row, first_row + self.block):
                yield from [row] * self.copies

    def __len__(self) -> int:
        """Rows of an epoch."""
        return len(self.questions) * self.block * self.copies


class DebateGRPOTrainer(GRPOTrainer):
    """TRL's GRPOTrainer with debates as rollouts.

    Args:
        online: protocol, judge, rewards and opponents.
        questions: by the index in a group's key.
        block: groups per question.
        engine: answers for policy, opponents and judge, and keeps the tokens that it draws.
        start: the policy before training.
        out: the job's folder.
        copies: G, games per question; `num_generations` of TRL, except for groups of one.
    """

    def __init__(
        self,
        *args: Any,
        online: Online,
        questions: Sequence[Question],
        block: int,
        engine: TransformersEngine | Serving,
        start: Debater,
        out: Path,
        copies: int,
        **kwargs: Any,
    ) -> None:
        self.online = online
        self.copies = copies
        self.questions = questions
        self.block = block
        self.engine = engine
        self.start = start
        self.judge = PatientJudge(online.judge, engine, online.judge_seconds)
        self.played: RolloutResult | None = None
        """The last rollout."""
        super().__init__(*args, rollout_func=roll, reward_funcs=reward_functions(TERMS), **kwargs)
        self.payer = None if online.reward is None else Payer(online.reward)
        self.baselines = RoleBaselines(out / "baselines.jsonl", online.decay) if online.advantages == "role" else None
        self.league: League | None = None
        if online.opponents.kind == "pool":
            self.league = League(out / "league", start, online.opponents.spread, self.args.seed)

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Sampler[int]:
        """Sample question by question: TRL's own sampler would shuffle the two sides of a game apart."""
        rows = self.train_dataset if dataset is None else dataset
        questions_per_batch = self.args.generation_batch_size // (self.block * self.copies)
        order = RepeatSampler(
            range(len(rows) // self.block),
            mini_repeat_count=1,  # Blocks repeats the rows of a group itself
            batch_size=questions_per_batch,
            repeat_count=self.num_iterations * self.args.steps_per_generation,
            shuffle=self.shuffle_dataset,
            seed=self.args.seed,
        )
        return Blocks(order, self.block, self.copies)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, then remove all policies from the server."""
        try:
            return super().train(*args, **kwargs)
        finally:
            # After an error too: a server keeps adapters until it is told otherwise.
            if isinstance(self.engine, Serving) and self.accelerator.is_main_process:
                self.engine.leave()

    def opponent(self, question: Question) -> Debater | None:
        """Who speaks for the other side on a question in this step; None is the policy itself."""
        settings = self.online.opponents
        step = self.state.global_step
        if settings.kind == "self":
            return None
        if settings.kind == "start":
            return self.start
        if self.league is not None:
            return self.league.draw(question.id, step)
        return draw_player(settings.players, self.args.seed)(question.id, step)

    def roll(self, keys: Sequence[str]) -> dict[str, Any]:
        """Play a batch.

        Args:
            keys: of the groups, each `copies` times.

        Returns:
            TRL's columns (prompts, completions, masks), a column for each term of the rewards, and the numbers that
            are logged.
        """
        groups = [read_group_key(key) for key in keys[:: self.copies]]
        self._check_batch(keys, groups)
        stream = [self.args.seed, self.state.global_step]
        with at_the_table(self, self.engine, self.online.temperature, self.online.players) as policy:
            encode = self._prompt_encoder()
            participants = Participants(policy, self.opponent, self.engine, self.judge, encode, self.payer)
            result = rollout(groups, self.copies, self.questions, self.online, participants, stream)
        self.played = result
        columns = training_columns(result.sequences, TERMS, self.processing_class)
        numbers = {name: float(count) for name, count in result.counts.items()}
        numbers.update(result.means)
        if isinstance(self.engine, Serving):
            numbers["retokenized"] = float(self.engine.retokenized)
        columns["numbers"] = numbers
        return columns

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        """TRL's batch, with advantages by role where they are asked for."""
        batch = super()._generate_and_score_completions(inputs)
        if self.baselines is None or self.played is None:
            return batch
        rewards: list[tuple[str, float | None]] = []
        for sequence in self.played.sequences:
            rewards.append((sequence.group.side, None if sequence.earned is None else sequence.earned.total))
        step = self.state.global_step
        # All processes share the means, so each takes the rewards of all.
        everywhere = gather_object(rewards) if self.accelerator.num_processes > 1 else rewards
        advantages = self.baselines.advantages(step, rewards)
        self.baselines.update(step, everywhere, self.accelerator.is_main_process)
        batch["advantages"] = batch["advantages"].new_tensor(advantages)
        return batch

    def _prompt_encoder(self) -> Callable[[Request], tuple[int, ...]]:
        """A function from a request to the token ids of its prompt; the G copies of a prompt are encoded once."""
        cache: dict[Any, tuple[int, ...]] = {}

        def encode(request: Request) -> tuple[int, ...]:
            key = (request.messages, request.opening)
            if key not in cache:
                if isinstance(self.engine, Serving):
                    cache[key] = self.engine.encode(request)
                else:
                    cache[key] = request_ids(self.processing_class, request)
            return cache[key]

        return encode

    def _check_batch(self, keys: Sequence[str], groups: Sequence[GroupKey]) -> None:
        """Check that TRL passes whole blocks, with each group `copies` times in a row.

        Raises:
            RuntimeError: it does not, as another version of TRL may.
        """
        expected = []
        for group in groups:
            expected += [group.key] * self.copies
        groups_per_question = Counter(group.question for group in groups)
        whole_blocks = all(count == self.block for count in groups_per_question.values())
        if list(keys) != expected[: len(keys)] or not whole_blocks:
            raise RuntimeError("TRL gave a rollout another batch than whole groups; see test_trl_contract.py")


def roll(prompts: Sequence[str], trainer: Any) -> dict[str, Any]:
    """The `rollout_func` that TRL calls; its prompts are the keys of groups."""
    return trainer.roll(prompts)


def training_columns(sequences: Sequence[Any], terms: Sequence[str], tokenizer: Any) -> dict[str, Any]:
    """TRL's columns of a rollout, and a column for each term of the rewards.

    Args:
        sequences: with prompt, completion, `earned` and `learnt`; of debaters or of a judge.
        terms: names of the rewards' terms.
        tokenizer: the policy's.
    """
    # A failed game has no tokens: one token stands in for them, and the mask leaves it out.
    filler = [closing_ids(tokenizer)[-1]]
    columns: dict[str, Any] = {"prompt_ids": [], "completion_ids": [], "env_mask": [], "logprobs": None}
    for sequence in sequences:
        completion = list(sequence.completion) or filler
        columns["prompt_ids"].append(list(sequence.prompt) or filler)
        columns["completion_ids"].append(completion)
        columns["env_mask"].append([int(sequence.learnt)] * len(completion))
    for term in terms:
        columns[term] = [None if s.earned is None else getattr(s.earned, term) for s in sequences]
    return columns


def reward_functions(terms: Sequence[str]) -> list[Callable[..., list[float | None]]]:
    """One function for each term, which TRL logs by its name and adds up; the first one logs the rollout's numbers."""

    def make(term: str) -> Callable[..., list[float | None]]:
        def reward(log_metric: Any, numbers: Sequence[dict[str, float]], **columns: Any) -> list[float | None]:
            # TRL passes `log_metric` to reward functions only, and one of them is enough.
            if term == terms[0]:
                for name, number in numbers[0].items():
                    log_metric(f"rollout/{name}", number)
            return list(columns[term])

        reward.__name__ = term
        return reward

    return [make(term) for term in terms]


def silence_trl() -> None:
    """Leave out TRL's warnings about its experimental hooks, and about answers without a reward, which are counted."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # the contract test is the warning
    logging.getLogger("trl.trainer.grpo_trainer").addFilter(_without_missing_rewards)


class SnapshotCallback(TrainerCallback):
    """Adds checkpoints of the policy to the league.

    Args:
        trainer: holds policy and league.
        watcher: knows the policy's ratings.
        model: the policy's base model.
    """

    def __init__(self, trainer: DebateGRPOTrainer, watcher: Watcher | None, model: str) -> None:
        self.trainer = trainer
        self.watcher = watcher
        self.model = model

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save the policy into the league every `snapshot` steps."""
        league = self.trainer.league
        step = state.global_step
        if league is None or step % self.trainer.online.opponents.snapshot:
            return
        # A job that was killed between this and its checkpoint comes by the same step again.
        if league.known(step):
            return
        is_main = self.trainer.accelerator.is_main_process
        # All processes enter `whole`: gathering shards needs every one of them.
        with whole(self.trainer):
            if is_main:
                save_adapter(self.trainer, league.adapter_folder(step), self.model)
        league.join(step, self._last_rating(step), is_main)
        self.trainer.accelerator.wait_for_everyone()

    def _last_rating(self, step: int) -> float:
        """Elo over the start at the last measurement up to a step; 0 before the first."""
        rating = 0.0
        points = {} if self.watcher is None else self.watcher.points
        for measured_step, point in sorted(points.items()):
            if measured_step <= step and point.elo is not None:
                rating = point.elo.value
        return rating


def grpo_trainer(
    job: Job,
    model: Any,
    tokenizer: Any,
    rows: Dataset,
    config: Any,
    callbacks: Sequence[Any],
    peft_config: Any = None,
) -> DebateGRPOTrainer:
    """Build a trainer that is ready to train.

    Args:
        job: of kind grpo.
        model: the policy.
        tokenizer: the policy's tokenizer.
        rows: keys of the groups that are played, in the column `prompt` (see `groups.playable`).
        config: TRL's GRPOConfig.
        callbacks: added to those for measuring and for the league.
        peft_config: LoRA settings of a new adapter.

    Raises:
        UserError: options contradict the protocol, or there are too few questions for a batch.
    """
    online = online_of(job)
    out = Path(job.out)
    block = block_of(online)
    copies = int(job.train.get("num_generations", config.num_generations))
    _check_options(config, online, block, len(rows) // block, job)
    silence_trl()
    local_engine = TransformersEngine(
        device=online.device,
        dtype=online.dtype,
        judge_dtype=online.judge_dtype,
        batch_tokens=online.batch_tokens,
        keep_tokens=True,
    )
    engine: TransformersEngine | Serving = local_engine
    start = Debater(name="start", model=job.model, adapter=job.adapter)
    start = start.model_copy(update={"temperature": online.temperature, **dict(online.players)})
    if online.server is not None:
        engine = Serving(online, local_engine, out, tokenizer, job.model, config.process_index)
        start = start.model_copy(update={"model": online.server.model})
    watcher = None
    if online.watch is not None and online.watch_questions is not None:
        watch_questions = read(online.watch_questions, Question)
        watcher = Watcher(online, watch_questions, engine, start, out, job.seed)
        callbacks = [watcher, *callbacks]
    trainer = DebateGRPOTrainer(
        model=model,
        args=config,
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=peft_config,
        callbacks=list(callbacks),
        online=online,
        block=block,
        questions=read(job.rows, Question),
        engine=engine,
        start=start,
        out=out,
        copies=copies,
    )
    prepare_trainer(trainer, job, model, tokenizer, watcher)
    trainer.add_callback(SnapshotCallback(trainer, watcher, job.model))
    return trainer


def prepare_trainer(
    trainer: GRPOTrainer, job: Job, model: Any, tokenizer: Any, watcher: CurveCallback[Any, Any] | None
) -> None:
    """Set what TRL's constructor does not: where answers end, whom the curve measures, the reference."""
    # TRL takes a completion without one of these tokens as cut off.
    trainer.eos_token_ids = sorted(end_tokens(tokenizer, model.generation_config))
    if watcher is not None:
        watcher.trainer = trainer
    if trainer.ref_model is not None and job.adapter is not None:
        # TRL loads the base as reference, but training starts from the base with an adapter merged into it.
        trainer.accelerator.unwrap_model(trainer.ref_model).load_state_dict(model.state_dict())


def _without_missing_rewards(record: logging.LogRecord) -> bool:
    """Filter TRL's warning that prints the whole row of every speech without a reward: the log has their number."""
    return "All reward functions returned None" not in str(record.msg)


def _check_options(config: Any, online: Online, block: int, questions: int, job: Job) -> None:
    """Check that batches hold whole questions, and that no options exclude each other.

    Raises:
        UserError: they do.
    """
    copies = int(job.train.get("num_generations", config.num_generations))
    rows = config.per_device_train_batch_size * config.steps_per_generation
    check_rows(rows, online, copies)
    batch_questions = rows // (block * copies) * config.world_size
    if questions < batch_questions:
        raise UserError(
            f"{job.rows}: {questions} questions to play, and one batch takes {batch_questions}; give more, or "
            "lower train.gradient_accumulation_steps"
        )
    if online.server is not None and job.lora is None:
        raise UserError(
            "lora null trains every weight, and a server can be sent an adapter only; set lora, or server_roles: none"
        )
    if online.opponents.kind == "pool" and job.lora is None:
        raise UserError("opponents.kind pool keeps an adapter for each checkpoint; set lora, or choose start")
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        raise UserError(
            "online training reads the weights whole, which FSDP cuts up; launch it with multi_gpu.yaml, zero2.yaml or "
            "zero3.yaml of configs/accelerate"
        )
    if job.lora is None and job.adapter is not None and config.beta and _zero3(config):
        raise UserError("beta with lora null and an adapter to start from needs whole weights; set beta 0, or lora")


def _zero3(config: Any) -> bool:
    """Whether weights are cut into shards by DeepSpeed."""
    return config.deepspeed_plugin is not None and config.deepspeed_plugin.zero_stage == 3
