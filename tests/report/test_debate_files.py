import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.game.verdict import Failure
from debate_rl.report import debate_files
from debate_rl.report.debate_files import COLUMNS, DebateWriter, keep_in, utf16
from tests.report.figure_data import unpacked


def written(legs, folder):
    writer = DebateWriter(keep_in(folder))
    one = writer.open("tournament")
    for leg in legs:
        one.add(leg)
    one.close()
    writer.close()
    return unpacked(folder / "s0-rows.js")


def test_a_row_tells_a_debate_and_where_the_rest_of_it_is(made, tmp_path):
    leg = made.leg(made.question(3), ("dpo", "sft"))
    table = written([leg], tmp_path)
    row = dict(zip(COLUMNS, table["rows"][0], strict=True))
    assert row["id"] == leg.transcript.id and table["players"][row["a"]] == "dpo"
    assert row["p"] == pytest.approx(leg.verdict.p[0], abs=1e-4) and row["right"] == (leg.p_correct > 0.5)
    assert row["surprise"] == pytest.approx(-math.log2(leg.p_correct), abs=1e-3)
    whole = unpacked(tmp_path / f"s0-{row['part']}.js")[row["place"]]
    part, place = whole["story"]
    story = unpacked(tmp_path / f"story-{part}.js")[place]
    assert story == leg.transcript.question.passage and len(whole["asks"]) == 2
    for start, end, look, numbers in whole["marks"]:
        assert look in ("exact", "near") and story[start:end] and numbers


def test_a_story_is_written_once_and_parts_stay_small(made, tmp_path, monkeypatch):
    monkeypatch.setattr(debate_files, "PART_LETTERS", 3000)
    legs = [made.leg(made.question(3), ("dpo", "sft")).model_copy() for _ in range(12)]
    table = written(legs, tmp_path)
    assert len(unpacked(tmp_path / "story-0.js")) == 1 and not (tmp_path / "story-1.js").exists()
    parts = {row[COLUMNS.index("part")] for row in table["rows"]}
    assert len(parts) > 3 and all((tmp_path / f"s0-{part}.js").is_file() for part in parts)


def test_a_failed_debate_has_a_row(made, tmp_path):
    leg = made.leg(made.question(3), ("dpo", "sft"))
    failure = Failure(seat="judge", kind="server", message="500")
    table = written([leg.model_copy(update={"verdict": None, "failure": failure})], tmp_path)
    row = dict(zip(COLUMNS, table["rows"][0], strict=True))
    assert (row["p"], row["right"], table["failures"][row["failure"]]) == (None, None, "server")


def test_a_file_holds_one_call_and_no_word_that_a_model_wrote(made, tmp_path):
    written([made.leg(made.question(3), ("dpo", "sft"), text="</script>\ud800\u2028 window.owned = 1 //")], tmp_path)
    for path in tmp_path.iterdir():
        assert re.fullmatch(r'debates\("[a-z0-9-]+","[A-Za-z0-9+/=]+"\)\n', path.read_text(encoding="utf-8"))


@given(st.text(st.characters(), max_size=20), st.integers(0, 20))
def test_places_are_counted_as_javascript_counts_them(text, position):
    assert utf16(text, position) == len(text[:position].encode("utf-16-le", "surrogatepass")) // 2
