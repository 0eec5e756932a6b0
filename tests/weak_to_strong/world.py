"""A stand-in for training: a model is as good as its size; help in its text or better labels make it better."""

import hashlib
import json
from pathlib import Path

import numpy as np

from debate_rl.game.protocol import load_protocol
from debate_rl.records import digest, read
from debate_rl.trainers.common.rows import ClassifierRow, JudgeRow, PreferenceRow, SftRow
from debate_rl.trainers.common.settings import Result
from debate_rl.weak_to_strong import training_cache
from debate_rl.weak_to_strong.tasks.items import plain_samples
from debate_rl.weak_to_strong.training_cache import Settings, Trainings

SKILL = {"weak": 0.6, "middle": 0.75, "strong": 0.95}
ROWS = {"judge": JudgeRow, "classifier": ClassifierRow, "sft": SftRow, "dpo": PreferenceRow}


def said(sample):
    """All that a model reads of a sample or row."""
    return "\n".join(message["content"] for message in sample.prompt)


class World:
    """Trains in no time. Texts end with the id of their item."""

    def __init__(self, splits, monkeypatch):
        self.truth = {item.id: item.label for item in splits.every}
        self.jobs = []
        self.scored = 0
        self.fails_at = None
        for name in ("launch", "job_name", "predict", "score", "fingerprint"):
            monkeypatch.setattr(training_cache, name, getattr(self, name))
        monkeypatch.setattr(training_cache, "check_readable", lambda *_: None)

    def fingerprint(self, path):
        return digest(str(path))

    def job_name(self, job):
        settings = job.model_dump(mode="json", exclude={"rows", "out"})
        return digest([settings, hashlib.sha256(Path(job.rows).read_bytes()).hexdigest()])

    def launch(self, job, accelerate_config=None, processes=None, quiet=False):
        done = Path(job.out) / "result.json"
        if done.is_file():
            return Result.model_validate(json.loads(done.read_text()))
        rows = read(job.rows, ROWS[job.kind])
        if self.fails_at is not None and len(self.jobs) >= self.fails_at:
            raise KeyboardInterrupt
        self.jobs.append(job)
        result = Result(
            kind=job.kind, path=self.learnt(job, rows), base="b", rows=len(rows), steps=1, loss=0, seconds=0
        )
        done.parent.mkdir(parents=True, exist_ok=True)
        done.write_text(result.model_dump_json())
        return result

    def learnt(self, job, rows):
        """The name of a trained model: base, skill, seed."""
        base, _, _ = job.model.partition(":")
        if job.kind == "sft":
            return f"{base}:{SKILL[base]}:{job.seed}"
        if job.kind == "dpo":
            return f"{base}:0.97:{job.seed}"
        names = [row.question if job.kind == "judge" else row.id for row in rows]
        right = np.mean([(row.target > 0.5) == self.truth[name] for row, name in zip(rows, names, strict=True)])
        skill = min(SKILL[base] + 0.25 * ("debate" in said(rows[0])), right)
        return f"{base}:{skill}:{job.seed}"

    def answers(self, names, skill, seed):
        drawn = np.random.default_rng(int(seed) + len(names)).random(len(names))
        truth = np.array([self.truth[name] for name in names])
        return np.where(drawn < float(skill), 0.1 + 0.8 * truth, 0.9 - 0.8 * truth)

    def score(self, samples, weights, engine):
        self.scored += 1
        _, _, learnt = weights.model.partition(":")
        skill, seed = learnt.split(":") if learnt else ("0.7", "5")
        return self.answers([said(sample).split()[-1] for sample in samples], skill, seed)

    def predict(self, rows, model, adapter, max_length):
        self.scored += 1
        _, skill, seed = model.split(":")
        return self.answers([said(row).split()[-1] for row in rows], skill, seed)


def samples(splits, word=""):
    """What is read of every item, with its id at the end so that the stand-in can tell which it is."""
    plain = plain_samples(splits.every, load_protocol("blind", prompts="lab"), True)
    return {
        key: one.model_copy(update={"prompt": [{"role": "user", "content": f"{said(one)} {word} {key}"}]})
        for key, one in plain.items()
    }


def train_in(folder, seeds=2, **changes):
    """Trainings of the stand-in's models."""
    return Trainings(Settings(weak="weak", strong="strong", seeds=seeds, **changes), lambda: None, folder / "transfer")
