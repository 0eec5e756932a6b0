"""Online training on TRL's GRPOTrainer: the policy plays, is judged, and learns from what its speeches earned.

All that leans on TRL's experimental hooks stands here (`rollout_func`, its extra fields, `env_mask`, None rewards), and
tests/trainers/test_trl_contract.py pins what they do. A row of the data set is the key of a group (`selfplay.Place`);
a question's groups are neighbours, so that both sides of a game are in one batch.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import GRPOTrainer
from trl.trainer.utils import RepeatSampler

from debate_rl.engines.chat import closing_ids, end_tokens, prompt_ids
from debate_rl.engines.local.engine import TransformersEngine
from debate_rl.engines.request import Request
from debate_rl.errors import UserError
from debate_rl.game.question import Question
from debate_rl.players.debater import Debater
from debate_rl.records import read
from debate_rl.trainers.common.settings import Job
from debate_rl.trainers.grpo.evaluation import Watcher
from debate_rl.trainers.grpo.groups import Place, block_of, check_rows, online_of, read_place
from debate_rl.trainers.grpo.opponent_pool import League, draw_player
from debate_rl.trainers.grpo.policy import PatientJudge, at_the_table, save_adapter, whole
from debate_rl.trainers.grpo.rewards import TERMS
from debate_rl.trainers.grpo.selfplay import Played, rollout
from debate_rl.trainers.grpo.serving import Serving
from debate_rl.trainers.grpo.settings import Online


class Blocks(Sampler[int]):
    """Indices of rows: questions in TRL's own order, of each all groups, each `copies` times.

    Every epoch has an order of its own that depends on its number alone, so that a resumed training finds it again.
    """

    def __init__(self, questions: RepeatSampler, block: int, copies: int) -> None:
        self.questions, self.block, self.copies, self.epoch = questions, block, copies, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; accelerate calls this."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Row by row."""
        if self.questions.shuffle:
            self.questions.generator.manual_seed((self.questions.seed or 0) + self.epoch)
        for question in self.questions:
            for place in range(self.block):
                yield from [question * self.block + place] * self.copies

    def __len__(self) -> int:
        """Rows of an epoch."""
        return len(self.questions) * self.block * self.copies


class DebateGRPOTrainer(GRPOTrainer):
    """GRPOTrainer on debates through the arena.

    Args:
        online: rules, judge, rewards, opponents.
        questions: by the index in a row's key.
        block: rows of a question.
        engine: answers for judge and opponents, and for the policy; keeps tokens.
        start: the policy before training.
        out: the job's folder.
    """

    def __init__(
        self, *args: Any, online: Online, questions: Sequence[Question], block: int,
        engine: TransformersEngine | Serving, start: Debater, out: Path, **kwargs: Any,
    ) -> None:  # fmt: skip
        self.online, self.questions, self.block, self.engine, self.start = online, questions, block, engine, start
        self.judge = PatientJudge(online.judge, engine, online.judge_seconds)
        self.played: Played | None = None
        """The last rollout."""
        super().__init__(*args, rollout_func=_roll, reward_funcs=_reward_functions(), **kwargs)
        spread, seed = online.opponents.spread, self.args.seed
        self.league = League(out / "league", start, spread, seed) if online.opponents.kind == "pool" else None

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Sampler[int]:
        """Question by question; TRL would shuffle sides apart."""
        rows = self.train_dataset if dataset is None else dataset
        per_batch = self.args.generation_batch_size // (self.block * self.num_generations)
        order = RepeatSampler(
            range(len(rows) // self.block), mini_repeat_count=1, batch_size=per_batch,
            repeat_count=self.num_iterations * self.args.steps_per_generation, shuffle=self.shuffle_dataset,
            seed=self.args.seed,
        )  # fmt: skip
        return Blocks(order, self.block, self.num_generations)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, after which a server keeps none of its policies."""
        try:
            return super().train(*args, **kwargs)
        finally:
            if isinstance(self.engine, Serving) and self.accelerator.is_main_process:
                self.engine.leave()

    def opponent(self, question: Question) -> Debater | None:
        """Who speaks for the other side on a question in this step; None is the policy itself."""
        wanted, step = self.online.opponents, self.state.global_step
        if wanted.kind == "self":
            return None
        if wanted.kind == "start":
            return self.start
        if self.league is not None:
            return self.league.draw(question.id, step)
        return draw_player(wanted.players, self.args.seed)(question.id, step)

    def roll(self, keys: Sequence[str]) -> dict[str, Any]:
        """Play a batch: TRL's columns of prompts, completions and masks, and a column for each term of the rewards."""
        wanted = [read_place(key) for key in keys[:: self.num_generations]]
        self._check_batch(keys, wanted)
        cache: dict[Any, tuple[int, ...]] = {}
        read = self.engine.encode if isinstance(self.engine, Serving) else partial(prompt_ids, self.processing_class)

        def encode(request: Request) -> tuple[int, ...]:
            if request.messages not in cache:
                cache[request.messages] = read(request.messages)
            return cache[request.messages]

        with at_the_table(self, self.engine, self.online.temperature) as policy:
            self.played = rollout(
                wanted, self.num_generations, self.questions, self.online, policy, self.opponent, self.engine,
                self.judge, encode, [self.args.seed, self.state.global_step],
            )  # fmt: skip
        end = closing_ids(self.processing_class)[-1]  # stands where a game failed; the mask leaves it out
        columns: dict[str, Any] = {"prompt_ids": [], "completion_ids": [], "env_mask": [], "logprobs": None}
        for one in self.played.sequences:
            completion = list(one.completion or (end,))
            columns["prompt_ids"].append(list(one.prompt or (end,)))
            columns["completion_ids"].append(completion)
            columns["env_mask"].append([int(one.learnt)] * len(completion))
        for term in TERMS:
            columns[term] = [None if s.earned is None else getattr(s.earned, term) for s in self.played.sequences]
        numbers = {**{name: float(count) for name, count in self.played.counts.items()}, **self.played.means}
        if isinstance(self.engine, Serving):
            numbers["retokenized"] = float(self.engine.retokenized)
        return {**columns, "numbers": numbers}

    def _check_batch(self, keys: Sequence[str], wanted: Sequence[Place]) -> None:
        """Make sure that TRL hands over whole blocks, each group `num_generations` times.

        Raises:
            RuntimeError: it does not: another version of TRL.
        """
        whole = all(key == wanted[at // self.num_generations].key for at, key in enumerate(keys))
        asked = Counter(place.question for place in wanted)
        if not whole or any(count != self.block for count in asked.values()):
            raise RuntimeError("TRL gave a rollout another batch than whole groups; see test_trl_contract.py")


def _roll(prompts: Sequence[str], trainer: DebateGRPOTrainer) -> dict[str, Any]:
    """What TRL calls for completions."""
    return trainer.roll(prompts)


def _reward_functions() -> list[Callable[..., list[float | None]]]:
    """One function for each term, which TRL logs by its name and adds up; the first one logs the rollout's numbers."""

    def make(term: str) -> Callable[..., list[float | None]]:
        def reward(log_metric: Any, numbers: Sequence[dict[str, float]], **columns: Any) -> list[float | None]:
            if term == TERMS[0]:
                for name, number in numbers[0].items():
                    log_metric(f"rollout/{name}", number)
            return list(columns[term])

        reward.__name__ = term
        return reward

    return [make(term) for term in TERMS]


class Rounds(TrainerCallback):
    """What happens between steps: checkpoints join the league."""

    def __init__(self, trainer: DebateGRPOTrainer, watcher: Watcher | None, model: str) -> None:
        self.trainer, self.watcher, self.model = trainer, watcher, model

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save the policy into the pool where it is due."""
        league, step = self.trainer.league, state.global_step
        if league is None or step % self.trainer.online.opponents.snapshot or league.known(step):
            return
        main = self.trainer.accelerator.is_main_process
        with whole(self.trainer):
            if main:
                save_adapter(self.trainer, league.place(step), self.model)
        points = {} if self.watcher is None else self.watcher.points
        rated = [point.elo.value for at, point in sorted(points.items()) if at <= step and point.elo is not None]
        league.join(step, rated[-1] if rated else 0.0, main)
        self.trainer.accelerator.wait_for_everyone()


def grpo_trainer(
    job: Job, model: Any, tokenizer: Any, rows: Dataset, config: Any, callbacks: Sequence[Any], peft_config: Any = None
) -> DebateGRPOTrainer:  # fmt: skip
    """A trainer ready to train.

    Args:
        job: of kind grpo.
        model: the policy.
        tokenizer: its tokenizer.
        rows: keys of the groups that are played, in the column `prompt` (see `places.playable`).
        config: TRL's GRPOConfig.
        callbacks: further ones.
        peft_config: LoRA settings of a new adapter.

    Raises:
        UserError: options contradict the protocol, or there are too few questions for a batch.
    """
    online, out = online_of(job), Path(job.out)
    block = block_of(online)
    _check_options(config, online, block, len(rows) // block, job)
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # the contract test is the warning
    logging.getLogger("trl.trainer.grpo_trainer").addFilter(_counted_here)
    here = TransformersEngine(
        device=online.device, dtype=online.dtype, batch_tokens=online.batch_tokens, keep_tokens=True
    )
    engine: TransformersEngine | Serving = here
    start = Debater(name="start", model=job.model, adapter=job.adapter, temperature=online.temperature)
    if online.server is not None:
        engine = Serving(online, here, out, tokenizer, job.model, config.process_index)
        start = start.model_copy(update={"model": online.server.model})
    watcher = None
    if online.watch is not None and online.watch_questions is not None:
        watched = read(online.watch_questions, Question)
        watcher = Watcher(online, watched, engine, start, out, job.seed)
    trainer = DebateGRPOTrainer(
        model=model, args=config, train_dataset=rows, processing_class=tokenizer, peft_config=peft_config,
        callbacks=[*([watcher] if watcher else []), *callbacks], online=online, block=block,
        questions=read(job.rows, Question),
        engine=engine, start=start, out=out,
    )  # fmt: skip
    # By these TRL tells which speeches were cut off.
    trainer.eos_token_ids = sorted(end_tokens(tokenizer, model.generation_config))
    if watcher is not None:
        watcher.trainer = trainer
    trainer.add_callback(Rounds(trainer, watcher, job.model))
    if trainer.ref_model is not None and job.adapter is not None:
        # TRL loads the base as reference; what training starts from has an adapter merged into it.
        trainer.accelerator.unwrap_model(trainer.ref_model).load_state_dict(model.state_dict())
    return trainer


def _counted_here(record: logging.LogRecord) -> bool:
    """TRL prints the whole row of every speech without a reward; they are counted in the log instead."""
    return "All reward functions returned None" not in str(record.msg)


def _check_options(config: Any, online: Online, block: int, questions: int, job: Job) -> None:
    """Make sure that batches hold whole questions.

    Raises:
        UserError: they do not, or an option asks for what can not be.
    """
    copies, processes = config.num_generations, config.world_size
    rows, unit = config.per_device_train_batch_size * config.steps_per_generation, block * copies
    check_rows(rows, online, copies)
    if questions < rows // unit * processes:
        raise UserError(
            f"{job.rows}: {questions} questions to play, and one batch takes {rows // unit * processes}; give more, or "
            "lower train.gradient_accumulation_steps"
        )
    if online.server is not None and job.lora is None:
        raise UserError(
            "lora null trains every weight, and a server can be sent an adapter only; set lora, or served: none"
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
