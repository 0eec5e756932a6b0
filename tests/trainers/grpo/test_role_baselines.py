"""Advantages by role: running means of each side, found again by a training that resumes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.trainers.grpo.role_baselines import RoleBaselines

REWARDS = [("A", 0.8), ("B", 0.2), ("A", 0.6), ("B", None)]


def test_a_speech_is_compared_with_what_its_side_has_earned_so_far(tmp_path):
    roles = RoleBaselines(tmp_path / "b.jsonl", 0.5)
    assert roles.advantages(0, REWARDS) == pytest.approx([0.1, 0.0, -0.1, 0.0])  # the first rollout has only itself
    roles.update(0, REWARDS, True)
    assert roles.at(1) == pytest.approx({"A": 0.7, "B": 0.2})
    assert roles.advantages(1, [("A", 1.0), ("B", 0.0), ("B", None)]) == pytest.approx([0.3, -0.2, 0.0])
    roles.update(1, [("A", 1.0)], True)
    assert roles.at(2) == pytest.approx({"A": 0.85, "B": 0.2})


@given(st.integers(1, 6))
def test_a_resumed_training_takes_the_means_of_its_step(tmp_path_factory, resumed):
    path = tmp_path_factory.mktemp("b") / "b.jsonl"
    whole = RoleBaselines(path, 0.9)
    seen = {}
    for step in range(6):
        seen[step] = dict(whole.at(step))
        whole.update(step, [("A", step / 10), ("B", 1 - step / 10)], True)
    again = RoleBaselines(path, 0.9)
    for step in range(resumed, 6):
        assert again.at(step) == pytest.approx(seen[step])
        again.update(step, [("A", step / 10), ("B", 1 - step / 10)], True)
