import pytest

from debate_rl import UserError
from debate_rl.analysis.reproduce import SOURCES, listed, reproduce

FILES = {
    "michael2023": "nyu_2023/debates.jsonl",
    "judgebench": "judgebench/decisions.jsonl",
    "ratings": "ratings/food.csv",
    "sciq_labels": "binary_tasks",
}


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_every_published_number_agrees(shared_data, name):
    reproduced = reproduce(name, shared_data / FILES[name])
    compared = [row for row in reproduced.rows if row.published is not None]
    assert compared and all(row.same for row in compared)
    assert f"{len(compared)} of {len(compared)} published numbers agree" in str(reproduced)
    assert name in listed()


def test_votes_without_published_ratings_are_rated_and_nothing_is_said_to_agree(tmp_path):
    (tmp_path / "votes.csv").write_text("left,right,winner\na,b,left\na,b,right\nb,a,left\n")
    reproduced = reproduce("ratings", tmp_path / "votes.csv")
    assert "no votes-golden.csv" in str(reproduced) and all(row.same is None for row in reproduced.rows)


def test_a_number_that_differs_is_said_to_differ(tmp_path):
    (tmp_path / "votes.csv").write_text("left,right,winner\na,b,left\na,b,left\nb,a,left\n")
    (tmp_path / "votes-golden.csv").write_text("algorithm,item,score\nbradley_terry,a,0.5\nbradley_terry,b,0.5\n")
    assert "DIFFERS" in str(reproduce("ratings", tmp_path / "votes.csv"))


def test_a_wrong_name_or_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match="did you mean 'judgebench'"):
        reproduce("judgebenh", tmp_path)
    with pytest.raises(UserError, match="file not found: .*judgebench needs decisions.jsonl"):
        reproduce("judgebench", tmp_path / "nothing.jsonl")
