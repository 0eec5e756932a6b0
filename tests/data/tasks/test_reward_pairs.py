import json

import pytest

from debate_rl.data.tasks.reward_pairs import load_pairs, turns
from debate_rl.errors import UserError

START = "\n\nHuman: Question {}?\n\nAssistant: What?\n\nHuman: That one.\n\nAssistant:"


def row(number, chosen="Sure.", rejected="No."):
    return {key: f"{START.format(number)} {said}" for key, said in (("chosen", chosen), ("rejected", rejected))}


def written(folder, rows):
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def test_a_pair_is_a_conversation_and_two_replies(tmp_path):
    (pair,) = load_pairs(path=written(tmp_path, [row(1)])).pairs
    assert [message["role"] for message in pair.prompt] == ["user", "assistant", "user"]
    assert (pair.prompt[0]["content"], pair.chosen, pair.rejected) == ("Question 1?", "Sure.", "No.")


def test_what_is_left_out_is_counted(tmp_path):
    rows = [row(1), row(1), row(2, "Same.", "Same."), row(3), row(1, "Other.")]
    rows.append({"chosen": row(4)["chosen"], "rejected": row(5)["rejected"]})
    found = load_pairs(path=written(tmp_path, rows))
    assert (len(found.pairs), found.read, found.repeated, found.unused) == (3, 6, 1, 2)
    assert str(found) == "3 pairs from 6 rows; 1 repeated, 2 unusable"
    assert found.pairs[0].cluster == found.pairs[2].cluster != found.pairs[1].cluster
    assert len(load_pairs(path=written(tmp_path, rows), limit=2).pairs) == 2


def test_replies_of_several_paragraphs_stay_whole():
    assert turns("\n\nHuman: A\n\nAssistant: one\n\ntwo")[-1]["content"] == "one\n\ntwo"
    assert turns("Human: A\n\nAssistant:")[-1]["content"] == ""


@pytest.mark.parametrize("text", ["", "Hello", "\n\nAssistant: a", "\n\nHuman: a", "x\n\nHuman: a\n\nAssistant: b"])
def test_malformed_conversations_are_left_out_and_named_by_line(tmp_path, text, caplog):
    found = load_pairs(path=written(tmp_path, [row(1), row(2) | {"rejected": text}]))
    assert (len(found.pairs), found.unused) == (1, 1)
    assert "expected a conversation that opens with 'Human:'" in caplog.text and "rows.jsonl:2" in caplog.text


def test_missing_fields_and_empty_files(tmp_path):
    with pytest.raises(UserError, match="rows.jsonl:1: no text field 'rejected'; no rows of hh are left"):
        load_pairs(path=written(tmp_path, [{"chosen": row(1)["chosen"]}]))
    with pytest.raises(UserError, match="rows.jsonl:1: both replies are the same .*; no rows of hh are left"):
        load_pairs(path=written(tmp_path, [row(1, "a", "a")]))


def test_the_real_pairs(shared_data):
    found = load_pairs(path=shared_data / "binary_tasks/hh_harmless_test.jsonl")
    assert found.read == 600 and len(found.pairs) + found.repeated + found.unused == 600
    assert len(found.pairs) > 550
