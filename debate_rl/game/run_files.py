"""Names of the files in a run's folder; no other module spells them.

runs/NAME/
    config.yaml  code.json  metrics.json  store/  paid.jsonl
    STAGE/       stage.json, metrics.json, timing.json, and what the stage made:
                 debates.jsonl, pools.jsonl, passages.jsonl, history.json, calibrator.json, effects.json
"""

CONFIG = "config.yaml"
"""The resolved config, written first."""
CODE = "code.json"
"""Versions, commit and date."""
STAGE = "stage.json"
"""What a finished stage was made from, and the checksums of its files."""
METRICS = "metrics.json"
"""What a stage measured; in the run's folder those of all stages."""
TIMING = "timing.json"
"""How long a stage took, and what it asked of models."""
DEBATES = "debates.jsonl"
"""Judged debates, one a line."""
POOLS = "pools.jsonl"
"""Candidates of Best-of-N players with their scores."""
BASE_DEBATES = "base_debates.jsonl"
"""Test debates with the verdicts of the judge before its training."""
TEST_DEBATES = "test_debates.jsonl"
"""The same with those of the trained judge."""
HUMAN_DEBATES = "human_debates.jsonl"
"""The same with those of human judges."""
HISTORY = "history.json"
"""What a trainer logged, step by step."""
LIVE = "live.jsonl"
"""The same while it trains, among its checkpoints; history.json replaces it."""
CALIBRATOR = "calibrator.json"
"""A judge's calibration."""
EFFECTS = "effects.json"
"""The table of effects."""
CURVE = "curve.jsonl"
"""What was measured while an online training went on."""
ATTACKS = "attacks.jsonl"
"""Trials of the attacks on judges."""


def watched(step: int) -> str:
    """The games of one measurement of an online training."""
    return f"watch/step-{step:06d}.jsonl"


def verdicts_of(judge: str) -> str:
    """The games of a judges stage with the verdicts of one judge."""
    # With a prefix: a judge may be called debates or attacks, as the stage's other files are.
    return f"verdicts-{judge.replace('/', '_')}.jsonl"
