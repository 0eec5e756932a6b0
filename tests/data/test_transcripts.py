import pytest

from debate_rl.data.lab.world import questions
from debate_rl.data.transcripts import load_transcripts
from debate_rl.errors import UserError
from debate_rl.game.protocol import load_protocol
from debate_rl.game.transcript import open_transcript
from debate_rl.game.verdict import Failure, Leg
from debate_rl.records import write


def test_lab_annotators_speak_by_the_rules_and_from_their_seed():
    asked = questions(n=10)
    rules = load_protocol("sequential", prompts="lab", turns=4)
    found = load_transcripts("lab-gpt", asked, rules, seed=1)
    assert [t.question for t in found] == asked and all(t.complete for t in found)
    assert [s.side for s in found[0].speeches] == ["A", "B", "A", "B"]
    assert found == load_transcripts("lab-gpt", asked, rules, seed=1)
    assert found != load_transcripts("lab-gpt", asked, rules, seed=2)


def test_the_cleaner_corpus_quotes_more_truly():
    asked = questions(n=100)
    valid = {}
    for source in ("lab-human", "lab-gpt"):
        speeches = [s for t in load_transcripts(source, asked, load_protocol("debate")) for s in t.speeches]
        valid[source] = sum(s.quotes[0].verdict == "exact" for s in speeches) / len(speeches)
    assert valid["lab-human"] < 0.99 <= valid["lab-gpt"]


def test_own_transcripts_come_back_whole_and_unfinished_ones_are_left_out(question, tmp_path):
    asked = questions(n=3)
    done = load_transcripts("lab-gpt", asked, load_protocol("debate"))
    broken = open_transcript(question, load_protocol("debate"), {"A": "x", "B": "y"})
    failure = Failure(seat="A", turn=0, kind="k", message="m")
    write(tmp_path / "legs.jsonl", [*[Leg(transcript=t) for t in done], Leg(transcript=broken, failure=failure)])
    write(tmp_path / "transcripts.jsonl", done)
    for name in ("legs.jsonl", "transcripts.jsonl"):
        found = load_transcripts(str(tmp_path / name), [], load_protocol("debate", prompts="lab"))
        assert [t.speeches for t in found] == [t.speeches for t in done]
        assert {t.protocol.prompts for t in found} == {"lab"}


def test_human_debates(shared_data):
    found = load_transcripts("nyu", [], load_protocol("debate", max_words=50), path=str(shared_data / "nyu_2023"))
    assert len(found) > 500 and all(t.question.passage for t in found)
    assert {t.protocol.max_words for t in found} == {50}


def test_mistakes(tmp_path):
    with pytest.raises(UserError, match="unknown transcripts 'lab-humn'; did you mean 'lab-human'"):
        load_transcripts("lab-humn", [], load_protocol("debate"))
    (tmp_path / "x.jsonl").write_text('{"question": 3}\n')
    with pytest.raises(UserError, match=r"x.jsonl:1"):
        load_transcripts(str(tmp_path / "x.jsonl"), [], load_protocol("debate"))
