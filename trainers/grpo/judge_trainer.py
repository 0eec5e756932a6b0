"""Online training of a judge on TRL's GRPOTrainer: it writes answers about finished games, and learns from what its
stated probabilities earn on the true answers (J1, 2505.10320; RLCR, 2507.16806).

A row of the data set is the key of a group (`judge_rollout`). What TRL gets is the same as for debaters.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from datasets import Dataset
from trl import GRPOTrainer

from debate_rl.engines.chat import prompt_ids
from debate_rl.engines.local.engine import TransformersEngine
from debate_rl.errors import UserError
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import JudgedDebate
from debate_rl.judges.judge import judge_transcripts
from debate_rl.records import read
from debate_rl.trainers.common.settings import Job
from debate_rl.trainers.grpo.custom import Payer
from debate_rl.trainers.grpo.eval_metrics import judged_leg
from debate_rl.trainers.grpo.evaluation import CurveCallback
from debate_rl.trainers.grpo.judge_metrics import JudgePoint, judge_point
from debate_rl.trainers.grpo.judge_rollout import JUDGE_TERMS, judge_of, judge_rollout
from debate_rl.trainers.grpo.judge_settings import JudgeWatch, Judging
from debate_rl.trainers.grpo.policy import at_the_table
from debate_rl.trainers.grpo.trainer import prepare_trainer, reward_functions, roll, silence_trl, training_columns


class JudgeGRPOTrainer(GRPOTrainer):
    """TRL's GRPOTrainer with a judge's answers as rollouts.

    Args:
        judging: reward and form of the answers.
        games: by the number in a group's key.
        engine: answers for the judge, and keeps the tokens that it draws.
    """

    def __init__(
        self, *args: Any, judging: Judging, games: Sequence[Transcript], engine: TransformersEngine, **kwargs: Any
    ) -> None:
        self.judging = judging
        self.games = games
        self.engine = engine
        function = judging.rewards.function
        self.payer = None if function is None else Payer(function)
        super().__init__(*args, rollout_func=roll, reward_funcs=reward_functions(JUDGE_TERMS), **kwargs)

    def roll(self, keys: Sequence[str]) -> dict[str, Any]:
        """Answer a batch.

        Args:
            keys: of the groups, each `num_generations` times.

        Returns:
            TRL's columns, a column for each term of the rewards, and the numbers that are logged.
        """
        stream = [self.args.seed, self.state.global_step]
        with at_the_table(self, self.engine, self.judging.temperature) as policy:
            judge = judge_of(self.judging, policy.model, policy.adapter, self.judging.temperature)
            result = judge_rollout(
                keys,
                self.games,
                self.judging,
                judge,
                self.engine,
                lambda request: prompt_ids(self.processing_class, request.messages),
                stream,
                self.payer,
            )
        if result.counts["unstated"] == len(keys) and self.state.global_step == 0:
            print(
                f"none of the judge's {len(keys)} first answers states a probability, so it has nothing to learn from: "
                f"{result.example!r}; raise max_new_tokens, or teach it the form first (a stage of kind stating)",
                flush=True,
            )
        columns = training_columns(result.sequences, JUDGE_TERMS, self.processing_class)
        columns["numbers"] = {**{name: float(count) for name, count in result.counts.items()}, **result.means}
        return columns


class JudgeWatcher(CurveCallback[JudgePoint, JudgedDebate]):
    """Measures the judge every `watch.every` steps on games that it does not learn from, and writes the curve.

    Args:
        judging: form of the answers.
        watch: when to measure, and the alarms.
        games: finished games with known answers.
        engine: answers for the judge during a measurement.
        out: the job's folder.
    """

    def __init__(
        self, judging: Judging, watch: JudgeWatch, games: Sequence[Transcript], engine: TransformersEngine, out: Path
    ) -> None:
        super().__init__(watch.every, watch.alarms.stop, out, JudgePoint, JudgedDebate)
        self.judging = judging
        self.watch = watch
        self.games = games
        self.engine = engine

    def _point(self, step: int, games: Sequence[JudgedDebate], before: Sequence[JudgedDebate]) -> JudgePoint:
        return judge_point(step, games, before, self.watch.alarms)

    def _games(self) -> list[JudgedDebate]:
        """The games with the judge's verdicts; each process judges its share and gets those of the others."""
        accelerator = self.trainer.accelerator
        games = self.games[accelerator.process_index :: accelerator.num_processes]
        with at_the_table(self.trainer, self.engine, self.judging.temperature) as policy:
            judge = judge_of(self.judging, policy.model, policy.adapter)
            answers = judge_transcripts(games, judge, self.engine)
        legs = [judged_leg(game, answer) for game, answer in zip(games, answers, strict=True)]
        if accelerator.num_processes == 1:
            return legs
        gathered = dict(gather_object([(leg.transcript.id, leg) for leg in legs]))
        return [gathered[game.id] for game in self.games]


def judge_grpo_trainer(
    job: Job, model: Any, tokenizer: Any, rows: Dataset, config: Any, callbacks: Sequence[Any], peft_config: Any = None
) -> JudgeGRPOTrainer:
    """Build a trainer that is ready to train.

    Args:
        job: of kind grpo, with `judging`.
        model: the judge.
        tokenizer: the judge's tokenizer.
        rows: keys of the groups, in the column `prompt` (see `judge_rollout.judgeable`).
        config: TRL's GRPOConfig.
        callbacks: added to the one that measures.
        peft_config: LoRA settings of a new adapter.

    Raises:
        UserError: there are too few games for a batch, or the reward is no function.
    """
    judging = judging_of(job)
    groups = config.generation_batch_size // config.num_generations
    if len(rows) < groups:
        raise UserError(
            f"{job.rows}: {len(rows)} games and presentations to judge, and one batch takes {groups}; give more, or "
            "lower train.per_device_train_batch_size or train.gradient_accumulation_steps"
        )
    silence_trl()
    engine = TransformersEngine(
        device=judging.device, dtype=judging.dtype, batch_tokens=judging.batch_tokens, keep_tokens=True
    )
    watcher = None
    if judging.watch is not None and judging.watch_games is not None:
        watched = read(judging.watch_games, Transcript)
        watcher = JudgeWatcher(judging, judging.watch, watched, engine, Path(job.out))
        callbacks = [watcher, *callbacks]
    trainer = JudgeGRPOTrainer(
        model=model,
        args=config,
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=peft_config,
        callbacks=list(callbacks),
        judging=judging,
        games=read(job.rows, Transcript),
        engine=engine,
    )
    prepare_trainer(trainer, job, model, tokenizer, watcher)
    return trainer


def judging_of(job: Job) -> Judging:
    """The settings of a job that trains a judge online."""
    if job.judging is None:
        raise UserError("a job that trains a judge online needs 'judging': what its statements earn")
    return job.judging
