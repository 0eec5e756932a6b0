"""Train debaters and judges in plain function calls; each returns the player or judge with its new weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from debate_rl.api.play import shared_engine
from debate_rl.api.results import Debates
from debate_rl.data.models import model_path
from debate_rl.data.sources.provenance import source_of
from debate_rl.errors import UserError
from debate_rl.game.protocol import Protocol, load_protocol
from debate_rl.game.question import Question
from debate_rl.game.transcript import Speech, Transcript
from debate_rl.game.verdict import JudgedDebate
from debate_rl.judges.judge import AnyJudge, Judge, StatedJudge
from debate_rl.players.debater import Debater
from debate_rl.records import explain, write
from debate_rl.stages.grpo import resolved
from debate_rl.trainers.common.rows import PreferenceRow, SftRow, judge_rows, sft_rows
from debate_rl.trainers.common.settings import Job, Kind, Lora, Objective, Result, Target
from debate_rl.trainers.grpo.judge_rollout import Judgement
from debate_rl.trainers.grpo.judge_settings import JudgeRewards, Judging
from debate_rl.trainers.grpo.settings import Online, Opponents, Rewards

LORA = Lora()
REWARDS = Rewards()
DebaterReward = Callable[[Speech, JudgedDebate], float]
JudgeReward = Callable[[Judgement], float]


def train_sft(
    debater: Debater,
    speeches: Sequence[Transcript] | Sequence[JudgedDebate] | Sequence[SftRow],
    out: str | Path,
    *,
    lora: Lora | None = LORA,
    seed: int = 0,
    **train: Any,
) -> Debater:
    """Finetune a debater on speeches.

    Args:
        debater: whose model and adapter the training starts from.
        speeches: transcripts or judged debates, whose every speech becomes a row, or rows.
        out: folder for the adapter; a training that was stopped goes on there.
        lora: None trains all weights.
        seed: of the training.
        train: fields of TRL's SFTConfig, such as `learning_rate=2e-4, num_train_epochs=2`.

    Returns:
        The debater with its new weights.

    Raises:
        UserError: no rows, or an argument that SFTConfig does not have.

    Example:
        >>> import debate_rl as dr
        >>> questions = dr.load_questions("lab", split="train", limit=4)
        >>> rules = dr.load_protocol("debate", prompts="lab", max_new_tokens=16)
        >>> corpus = dr.load_transcripts("lab-human", questions, rules)
        >>> base = dr.Debater("base", model="lab-base")
        >>> sft = dr.train_sft(base, corpus.transcripts, "runs/mine/sft", learning_rate=1e-3, max_steps=2)
        >>> sft.name
        'sft'
    """
    rows: list[Any] = list(speeches)
    games = [row.transcript if isinstance(row, JudgedDebate) else row for row in rows]
    if games and isinstance(games[0], Transcript):
        rows = sft_rows(games, source_of("file", "as given"))
    return _debater(debater, out, _train("sft", debater, rows, out, lora, seed, train))


def train_dpo(
    debater: Debater,
    pairs: Sequence[PreferenceRow],
    out: str | Path,
    *,
    beta: float = 0.1,
    target: Target = "prob",
    objective: Objective | None = None,
    lora: Lora | None = LORA,
    seed: int = 0,
    **train: Any,
) -> Debater:
    """Train a debater on preferences (DPO, Rafailov et al. 2023; soft targets of Arnesen et al. 2024, section 3.2).

    Args:
        debater: whose model and adapter the training starts from; that policy is the reference.
        pairs: rows of `preferences`.
        out: folder for the adapter; a training that was stopped goes on there.
        beta: strength of the KL penalty (TRL's DPOConfig).
        target: how the judge's two probabilities become the probability that the chosen speech is better.
        objective: the whole loss, in place of `target`.
        lora: None trains all weights.
        seed: of the training.
        train: further fields of TRL's DPOConfig.

    Returns:
        The debater with its new weights.

    Raises:
        UserError: no rows, or an argument that DPOConfig does not have.

    Example:
        >>> import debate_rl as dr
        >>> questions = dr.load_questions("lab", split="train", limit=4)
        >>> rules = dr.load_protocol("debate", prompts="lab", max_new_tokens=16)
        >>> player = dr.Debater("base@4", model="lab-base", best_of=4, temperature=1.0)
        >>> debates = dr.play(player, player, questions, dr.Judge(model="lab-base"), rules)
        >>> dpo = dr.train_dpo(player, dr.preferences(debates), "runs/mine/dpo", beta=0.5, max_steps=2)
        >>> dpo.name, dpo.best_of
        ('dpo', 4)
    """
    loss = Objective(target=target) if objective is None else objective
    settings = {"beta": beta, **train}
    return _debater(debater, out, _train("dpo", debater, list(pairs), out, lora, seed, settings, objective=loss))


def train_judge(
    judge: Judge,
    debates: Debates | Sequence[JudgedDebate] | Sequence[Transcript],
    out: str | Path,
    *,
    labels: Sequence[float] | None = None,
    lora: Lora | None = LORA,
    seed: int = 0,
    **train: Any,
) -> Judge:
    """Finetune a judge on finished debates, each shown in both orders.

    Args:
        judge: whose model and adapter the training starts from.
        debates: what it learns to decide.
        out: folder for the adapter; a training that was stopped goes on there.
        labels: probability of answer 0 for each debate; None takes the correct answers.
        lora: None trains all weights.
        seed: of the training.
        train: fields of transformers' TrainingArguments.

    Returns:
        The judge with its new weights.

    Raises:
        UserError: a question has no correct answer and there are no labels, or an unknown argument.

    Example:
        >>> import debate_rl as dr
        >>> questions = dr.load_questions("lab", split="train", limit=4)
        >>> rules = dr.load_protocol("debate", prompts="lab", max_new_tokens=16)
        >>> corpus = dr.load_transcripts("lab-human", questions, rules)
        >>> judge = dr.train_judge(dr.Judge(model="lab-base"), corpus.transcripts, "runs/mine/judge", max_steps=2)
        >>> judge.adapter
        'runs/mine/judge/adapter'
    """
    games = [debate.transcript if isinstance(debate, JudgedDebate) else debate for debate in debates]
    rows = judge_rows(games, labels, readout=judge.readout)
    result = _train("judge", judge, rows, out, lora, seed, train)
    name = Path(out).name
    if lora is None:
        return judge.model_copy(update={"name": name, "model": result.path, "adapter": None})
    return judge.model_copy(update={"name": name, "adapter": result.path})


def train_grpo(
    debater: Debater,
    questions: Sequence[Question],
    judge: AnyJudge,
    out: str | Path,
    *,
    protocol: str | Protocol = "debate",
    rewards: Rewards = REWARDS,
    reward: DebaterReward | None = None,
    lora: Lora | None = LORA,
    seed: int = 0,
    **train: Any,
) -> Debater:
    """Train a debater online against itself (TRL's GRPO; Shao et al. 2024): play, be judged, learn from the rewards.

    Args:
        debater: whose model and adapter the training starts from.
        questions: what is debated.
        judge: whose probabilities are the rewards; a `FunctionJudge` is called in this process.
        out: folder for the adapter; a training that was stopped goes on there.
        protocol: a shipped protocol's name, a YAML file or a `Protocol`.
        rewards: how verdicts become rewards.
        reward: function of a speech and its judged game that pays in place of `rewards.win`; a call that raises or
            gives no finite number pays nothing, and is counted.
        lora: None trains all weights.
        seed: of games and training.
        train: fields of TRL's GRPOConfig, such as `num_generations=4, max_steps=20`.

    Returns:
        The debater with its new weights.

    Raises:
        UserError: the protocol can not be played online, an argument that GRPOConfig does not have, or the reward
            failed in every call of a step.

    Example:
        >>> import debate_rl as dr
        >>> questions = dr.load_questions("lab", split="train", limit=4)
        >>> rules = dr.load_protocol("debate", prompts="lab", max_new_tokens=16)
        >>> base = dr.Debater("base", model="lab-base", temperature=1.0)
        >>> judge = dr.Judge(model="lab-base")
        >>> grpo = dr.train_grpo(
        ...     base, questions, judge, "runs/mine/grpo", protocol=rules, num_generations=2, max_steps=1
        ... )
        >>> grpo.name
        'grpo'
    """
    rules = load_protocol(protocol) if isinstance(protocol, str) else protocol
    try:
        online = Online(
            protocol=rules,
            judge=resolved(judge, str, model_path),
            temperature=debater.temperature,
            players=debater.manner,
            rewards=rewards,
            reward=reward,
            opponents=Opponents(kind="self", players=()),
        )
    except ValidationError as error:
        raise UserError(explain(error)) from error
    return _debater(debater, out, _train("grpo", debater, list(questions), out, lora, seed, train, online=online))


def train_judge_grpo(
    judge: StatedJudge,
    debates: Debates | Sequence[JudgedDebate] | Sequence[Transcript],
    out: str | Path,
    *,
    reward: str | JudgeReward = "correctness+brier",
    rewards: JudgeRewards | None = None,
    lora: Lora | None = LORA,
    seed: int = 0,
    **train: Any,
) -> StatedJudge:
    """Train a judge online (TRL's GRPO): it reads debates, states a probability, and is paid by the true answer.

    Args:
        judge: whose model and adapter the training starts from, and in whose form it answers.
        debates: finished debates on questions with known answers.
        out: folder for the adapter; a training that was stopped goes on there.
        reward: correctness, brier, log, correctness+brier, or a function of a `Judgement` that returns a number. A call
            that raises or gives no finite number pays nothing, and is counted. An answer that states no probability
            earns the worst, and is counted.
        rewards: penalties of length and form beside it.
        lora: None trains all weights.
        seed: of answers and training.
        train: fields of TRL's GRPOConfig, such as `num_generations=8, max_steps=50`.

    Returns:
        The judge with its new weights.

    Raises:
        UserError: no debate has a known answer, an unknown reward or argument, or the reward failed in every call of a
            step.

    Example:
        >>> import debate_rl as dr
        >>> questions = dr.load_questions("lab", split="train", limit=4)
        >>> rules = dr.load_protocol("debate", prompts="lab", max_new_tokens=16)
        >>> corpus = dr.load_transcripts("lab-human", questions, rules)
        >>> judge = dr.StatedJudge(model="lab-base", max_new_tokens=8)
        >>> small = {"num_generations": 2, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
        >>> judge = dr.train_judge_grpo(  # doctest: +ELLIPSIS
        ...     judge, corpus.transcripts, "runs/mine/stated", reward="brier", max_steps=1, **small
        ... )
        none of the judge's 4 first answers states a probability, so it has nothing to learn from: ...
        >>> judge.adapter
        'runs/mine/stated/adapter'
    """
    games = [debate.transcript if isinstance(debate, JudgedDebate) else debate for debate in debates]
    how: dict[str, Any] = {"function": reward} if callable(reward) or ":" in reward else {"rule": reward}
    base = JudgeRewards() if rewards is None else rewards
    try:
        judging = Judging(
            rewards=JudgeRewards.model_validate({**base.model_dump(exclude={"function"}), **how}),
            reasoning=judge.reasoning,
            both_orders=judge.both_orders,
            temperature=judge.temperature or 1.0,
            max_new_tokens=judge.max_new_tokens,
        )
    except ValidationError as error:
        raise UserError(explain(error)) from error
    result = _train("grpo", judge, games, out, lora, seed, train, judging=judging)
    weights = {"adapter": result.path} if lora is not None else {"model": result.path, "adapter": None}
    return judge.model_copy(update={"name": Path(out).name, **weights})


def _train(
    kind: Kind,
    start: Debater | Judge | StatedJudge,
    rows: Sequence[BaseModel],
    out: str | Path,
    lora: Lora | None,
    seed: int,
    train: dict[str, Any],
    **of_kind: Any,
) -> Result:
    """Write the rows and train on them in this process."""
    from debate_rl.trainers.common.arguments import check_arguments  # here: they load TRL
    from debate_rl.trainers.common.job import run_job

    if not rows:
        raise UserError(f"{kind}: no rows to train on")
    check_arguments(kind, train)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "rows.jsonl", rows)
    try:
        job = Job(
            kind=kind,
            model=model_path(start.model),
            adapter=start.adapter,
            rows=str(folder / "rows.jsonl"),
            out=str(folder),
            lora=lora,
            train=train,
            seed=seed,
            **of_kind,
        )
    except ValidationError as error:
        raise UserError(explain(error)) from error
    shared_engine.cache_clear()  # its models would stay in memory beside the training's
    return run_job(job, quiet=True)


def _debater(debater: Debater, out: str | Path, result: Result) -> Debater:
    """The debater with what a training made, under the name of its folder."""
    name = Path(out).name
    if Path(result.path).name == "model":
        return debater.model_copy(update={"name": name, "model": result.path, "adapter": None})
    return debater.model_copy(update={"name": name, "adapter": result.path})
