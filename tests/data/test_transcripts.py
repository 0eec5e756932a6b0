import pytest

from debate_rl.data.lab.world import questions
from debate_rl.data.transcripts import load_transcripts
from debate_rl.errors import UserError
from debate_rl.game.protocol import load_protocol
from debate_rl.game.transcript import open_transcript
from debate_rl.game.verdict import Failure, JudgedDebate
from debate_rl.records import write


def test_lab_annotators_speak_by_the_rules_and_from_their_seed():
    asked = questions(n=10)
    rules = load_protocol("sequential", prompts="lab", turns=4)
    corpus = load_transcripts("lab-gpt", asked, rules, seed=1)
    found = corpus.transcripts
    assert (corpus.source.licence, corpus.left_out, corpus.notes) == ("Apache-2.0", {}, {})
    assert [t.question for t in found] == asked and all(t.complete for t in found)
    assert [s.side for s in found[0].speeches] == ["A", "B", "A", "B"]
    assert corpus == load_transcripts("lab-gpt", asked, rules, seed=1)
    assert found != load_transcripts("lab-gpt", asked, rules, seed=2).transcripts


def test_the_cleaner_corpus_quotes_more_truly():
    asked = questions(n=100)
    valid = {}
    for source in ("lab-human", "lab-gpt"):
        speeches = [s for t in load_transcripts(source, asked, load_protocol("debate")).transcripts for s in t.speeches]
        valid[source] = sum(s.quotes[0].verdict == "exact" for s in speeches) / len(speeches)
    assert valid["lab-human"] < 0.99 <= valid["lab-gpt"]


def test_own_transcripts_come_back_whole_and_unfinished_ones_are_left_out(question, tmp_path):
    asked = questions(n=3)
    done = load_transcripts("lab-gpt", asked, load_protocol("debate")).transcripts
    broken = open_transcript(question, load_protocol("debate"), {"A": "x", "B": "y"})
    failure = Failure(seat="A", turn=0, kind="k", message="m")
    write(
        tmp_path / "debates.jsonl",
        [*[JudgedDebate(transcript=t) for t in done], JudgedDebate(transcript=broken, failure=failure)],
    )
    write(tmp_path / "transcripts.jsonl", done)
    for name in ("debates.jsonl", "transcripts.jsonl"):
        corpus = load_transcripts(str(tmp_path / name), [], load_protocol("debate", prompts="lab"))
        found = corpus.transcripts
        assert [t.speeches for t in found] == [t.speeches for t in done]
        assert {t.protocol.prompts for t in found} == {"lab"}
        assert corpus.left_out == ({"game was not finished": 1} if name == "debates.jsonl" else {})
        assert corpus.source.licence == "speeches: not stated; questions and stories: Apache-2.0"


def test_human_debates_are_all_there_with_speaker_licence_and_split(shared_data):
    rules = load_protocol("debate", max_words=50)
    corpus = load_transcripts("nyu", [], rules, path=str(shared_data / "nyu_2023"))
    found = corpus.transcripts
    assert (len(found), sum(len(t.speeches) for t in found)) == (600, 3157)
    assert corpus.left_out == {"nobody spoke": 31}
    assert corpus.notes == {"game was not finished": 39, "one side is missing in a round": 4}
    assert corpus.source.licence == "CC BY 4.0" and "Michael" in corpus.source.by
    assert {t.protocol.max_words for t in found} == {50}
    assert {t.question.split for t in found} == {"train", "validation", "test"}
    assert all(t.question.passage for t in found)
    speakers = {s.origin.player for t in found for s in t.speeches if t.players[s.side] == "human"}
    assert len(speakers) > 5 and not speakers & {"human", "GPT-4"}


def test_human_and_gpt_debaters_can_be_taken_apart(shared_data):
    path, rules = str(shared_data / "nyu_2023"), load_protocol("debate")
    parts = {name: load_transcripts(name, [], rules, path=path).transcripts for name in ("nyu-human", "nyu-gpt")}
    assert {name: {p for t in part for p in t.players.values()} for name, part in parts.items()} == {
        "nyu-human": {"human"}, "nyu-gpt": {"GPT-4"},
    }  # fmt: skip
    assert sum(map(len, parts.values())) == 600


def test_mistakes(tmp_path):
    with pytest.raises(UserError, match="unknown transcripts 'lab-humn'; did you mean 'lab-human'"):
        load_transcripts("lab-humn", [], load_protocol("debate"))
    (tmp_path / "x.jsonl").write_text('{"question": 3}\n')
    with pytest.raises(UserError, match=r"x.jsonl:1"):
        load_transcripts(str(tmp_path / "x.jsonl"), [], load_protocol("debate"))
