"""The SFT stage: sources are mixed as asked, tested stories stay out, every row is accounted for, the card says so."""

import json
from collections import Counter
from types import SimpleNamespace

import pytest

from debate_rl.config.tree import parse_config
from debate_rl.errors import UserError
from debate_rl.game.protocol import load_protocol
from debate_rl.game.question import Question
from debate_rl.game.transcript import Origin, Transcript, open_transcript, read_speech
from debate_rl.records import read, read_json, write
from debate_rl.runs.execute import run_stages
from debate_rl.runs.run import Run
from debate_rl.stages import sft
from debate_rl.stages.sft import SftStage
from debate_rl.trainers.common.rows import SftRow

PASSAGE = "\n\n".join(
    f"On day {n} the pipe was moved from the shed to barn number {n} by Ines, who said so." for n in range(9)
)


def question(number, passage=None, **fields):
    text = passage or f"Story {number}.\n\n{PASSAGE.replace('pipe', f'pipe{number}').replace('barn', f'barn{number}')}"
    return Question(id=f"q{number}", text="Where?", answers=("Shed", "Barn"), correct=0, passage=text,
                    group=f"s{number}", source="own", split="train", **fields)  # fmt: skip


def at_work(tmp_path, trained, tested, **stage):
    """A run whose own transcripts are about `trained`, and whose test questions are `tested`."""
    rules = load_protocol("debate")
    games = []
    for asked in trained:
        quote = " ".join(asked.passage.split("\n\n")[3].split()[:6])
        game = open_transcript(asked, rules, {"A": "sft", "B": "sft"})
        text = f"It is so: <quote>{quote}</quote>"
        games.append(game.add(read_speech(text, game, side, 0, Origin(player="sft")) for side in "AB"))
    write(tmp_path / "own.jsonl", games)
    config = parse_config({"stages": {}, "protocol": {"prompts": "default"}})
    run = SimpleNamespace(config=config, protocol=lambda name=None: rules,
                          questions=lambda split, count=None: list(tested), resolve=lambda name: name)  # fmt: skip
    return SftStage(transcripts=(str(tmp_path / "own.jsonl"),), **stage), run


def test_stories_that_are_tested_are_left_out_by_id_and_by_text(tmp_path):
    trained = [question(n) for n in range(4)]
    respelt = question(9, " ".join(trained[2].passage.upper().split()).replace(".", "!"))
    stage, run = at_work(tmp_path, trained, [trained[1], respelt])
    found = sft.material(stage, run, stage.transcripts[0], sft.tested_stories(run))
    assert {row.group for row in found.rows} == {"s0", "s3"}
    assert found.left_out == {f"{sft.TESTED}id": 1, f"{sft.TESTED}text": 1}
    assert len(found.rows) == len(found.verdicts) == 4
    assert {v for verdicts in found.verdicts for v in verdicts} == {"exact"}
    assert {row.split for row in found.rows} == {"train"}


def test_a_shortened_passage_says_so_and_keeps_what_is_quoted(tmp_path, monkeypatch):
    stage, run = at_work(tmp_path, [question(0), question(1)], [question(7)], passage_tokens=70)
    monkeypatch.setattr(sft, "_token_counter", lambda stage, run: lambda text: len(text.split()))
    found = sft.material(stage, run, stage.transcripts[0], sft.tested_stories(run))
    assert found.notes == {"passage shortened, [...] where paragraphs are missing": 2}
    for row, asked in zip(found.rows[::2], [question(0), question(1)], strict=True):
        prompt = row.prompt[-1]["content"] + row.prompt[0]["content"]
        assert "[...]" in prompt and asked.passage.split("\n\n")[3] in prompt
        assert asked.passage not in prompt


def test_a_game_without_a_passage_is_not_counted_as_shortened(tmp_path, monkeypatch):
    stage, run = at_work(tmp_path, [question(0)], [question(7)], passage_tokens=70)
    (game,) = read(stage.transcripts[0], Transcript)
    bare = game.model_copy(update={"question": game.question.model_copy(update={"passage": None})})
    monkeypatch.setattr(sft, "_token_counter", lambda stage, run: lambda text: len(text.split()))
    write(stage.transcripts[0], [bare])
    found = sft.material(stage, run, stage.transcripts[0], sft.tested_stories(run))
    assert found.notes == {} and len(found.rows) == 2


def test_games_of_an_archive_show_what_they_quote_and_what_is_nearest(tmp_path, monkeypatch):
    far = question(0, "\n\n".join(["It rained."] * 30 + ["Ines slept here that night."] + ["Shed and barn stood."]))
    stage, run = at_work(tmp_path, [question(0), far.model_copy(update={"id": "q1"})], [question(7)])
    run.config = parse_config({"stages": {}, "protocol": {"prompts": "default", "passage_tokens": 40}})
    monkeypatch.setattr(sft, "_token_counter", lambda stage, run: lambda text: len(text.split()))
    found = sft.material(stage, run, stage.transcripts[0], sft.tested_stories(run))
    assert found.notes == {"passage shortened, [...] where paragraphs are missing": 2}
    for row, asked in zip(found.rows[::2], [question(0), far], strict=True):
        prompt = row.prompt[-1]["content"]
        assert asked.passage.split("\n\n")[3] in prompt and "[...]" in prompt
    assert "Shed and barn stood." in found.rows[2].prompt[-1]["content"]
    # A game that was played on an excerpt is learnt from as it was shown.
    (first, *_) = read(stage.transcripts[0], Transcript)
    shown = first.model_copy(update={"question": first.question.model_copy(update={"excerpt": "As it was shown."})})
    write(stage.transcripts[0], [shown])
    (row, _) = sft.material(stage, run, stage.transcripts[0], sft.tested_stories(run)).rows
    assert "As it was shown." in row.prompt[-1]["content"]


def test_rows_that_are_too_long_are_replaced_and_counted():
    sources = materials(40, 5)
    for source in sources:
        source.rows = [SftRow(prompt=[], completion="x" * (1 + place % 2)) for place in range(len(source.rows))]
    chosen = [(0, place) for place in range(10)] + [(1, place) for place in range(5)]
    kept, over = sft.within_length(sources, chosen, lambda row: len(row.completion) == 1, 0)
    assert Counter(source for source, _ in kept) == {0: 10, 1: 3}
    assert len(set(kept)) == len(kept) and all(len(sources[at].rows[row].completion) == 1 for at, row in kept)
    assert over[1] == 2 and over[0] >= 5
    assert sft.within_length(sources, chosen, lambda row: True, 0) == (chosen, Counter())


def test_a_run_trains_on_as_many_rows_as_it_says_before(tmp_path):
    lines = []
    sft_stage = {
        "transcripts": ["lab-human"],
        "rows": 8,
        "lora": {"r": 2, "alpha": 4},
        "train": {"max_steps": 1, "max_length": 125},
    }
    config = parse_config({
        "name": "some", "runs": str(tmp_path), "tracking": {"mode": "disabled"},
        "questions": {"train": 30, "test": 4}, "protocol": {"prompts": "lab", "max_new_tokens": 48},
        "stages": {"sft": sft_stage},
    })  # fmt: skip
    metrics = run_stages(Run(config, say=lines.append))["sft"]
    assert (metrics["rows"], metrics["left_out"], metrics["too_long"]) == (8, {}, 0)
    assert "  training on 8 of 60 rows" in lines
    assert any("rows longer than train.max_length" in line for line in lines)
    assert "left out: row longer than train.max_length" in (tmp_path / "some" / "sft" / "data_card.md").read_text()
    config = parse_config({
        **config.model_dump(mode="json", by_alias=True), "name": "none",
        "stages": {"sft": {**sft_stage, "train": {"max_length": 9}}},
    })  # fmt: skip
    with pytest.raises(UserError, match=r"every row is longer than train\.max_length 9"):
        run_stages(Run(config, say=lines.append))


def materials(*sizes):
    row = SftRow(prompt=[], completion="x")
    return [SimpleNamespace(rows=[row] * size) for size in sizes]


def test_rows_are_drawn_by_share_and_seed():
    stage = SftStage(transcripts=("lab-human", "lab-gpt"), mix={"lab-human": 1, "lab-gpt": 3})
    drawn = sft.drawn(stage, materials(100, 150), 0)
    assert Counter(at for at, _ in drawn) == {0: 50, 1: 150}
    assert len(set(drawn)) == 200
    assert drawn == sft.drawn(stage, materials(100, 150), 0) != sft.drawn(stage, materials(100, 150), 1)
    fewer = stage.model_copy(update={"rows": 40})
    assert Counter(at for at, _ in sft.drawn(fewer, materials(100, 150), 0)) == {0: 10, 1: 30}
    with pytest.raises(UserError, match="which allows a mix of 200 rows"):
        sft.drawn(stage.model_copy(update={"rows": 201}), materials(100, 150), 0)


def test_without_a_mix_all_rows_or_a_draw_of_all():
    stage = SftStage(transcripts=("lab-human", "lab-gpt"))
    assert len(sft.drawn(stage, materials(3, 4), 0)) == 7
    assert len(set(sft.drawn(stage.model_copy(update={"rows": 5}), materials(3, 4), 0))) == 5


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        (
            {"transcripts": ["lab-gpt"], "mix": {"lab-human": 1}},
            "mix names 'lab-human', which is not among transcripts",
        ),
        ({"transcripts": ["lab-gpt", "nyu"], "mix": {"nyu": 1}}, "mix has no share for 'lab-gpt'"),
        ({"transcripts": ["lab-gpt"], "mix": {"lab-gpt": 0}}, "mix.lab-gpt: Input should be greater than 0"),
        ({"transcripts": ["lab-gpt"], "paths": {"khan": "x"}}, "paths names 'khan'"),
        ({"transcripts": []}, "transcripts"),
        ({"transcripts": ["lab-gpt", "nyu", "lab-gpt"]}, "transcripts has 'lab-gpt' twice"),
    ],
)
def test_a_mix_that_does_not_fit_is_refused(stage, said):
    with pytest.raises(UserError, match=said):
        parse_config({"stages": {"sft": stage}})


def test_lab_and_instructions_are_mixed_trained_and_put_on_a_card(tmp_path):
    alpaca = [{"instruction": f"Say {n}.", "input": "", "output": "" if n == 9 else f"the pipe {n}"} for n in range(10)]
    (tmp_path / "alpaca.json").write_text(json.dumps(alpaca))
    config = parse_config({
        "name": "mix", "runs": str(tmp_path), "tracking": {"mode": "disabled"},
        "questions": {"train": 12, "test": 4}, "protocol": {"prompts": "lab", "max_new_tokens": 48},
        "stages": {"sft": {
            "transcripts": ["lab-human", "lab-gpt", "instructions"],
            "mix": {"lab-human": 1, "lab-gpt": 3, "instructions": 2}, "rows": 24,
            "paths": {"instructions": str(tmp_path / "alpaca.json")}, "licences": {"instructions": "CC BY-NC 4.0"},
            "lora": {"r": 2, "alpha": 4}, "train": {"max_steps": 1, "per_device_train_batch_size": 4},
        }},
    })  # fmt: skip
    metrics = run_stages(Run(config, say=lambda line: None))["sft"]
    assert metrics["rows_by_source"] == {"lab-human": 4, "lab-gpt": 12, "instructions": 8}
    assert (metrics["rows_built"], metrics["rows"], metrics["left_out"]) == (24 + 24 + 9, 24, {})
    rows = read(tmp_path / "mix" / "sft" / "rows.jsonl", SftRow)
    assert Counter((row.corpus, row.licence) for row in rows) == {
        ("lab-human", "Apache-2.0"): 4, ("lab-gpt", "Apache-2.0"): 12, ("instructions", "CC BY-NC 4.0"): 8,
    }  # fmt: skip
    card = (tmp_path / "mix" / "sft" / "data_card.md").read_text()
    assert "| lab-gpt | Apache-2.0 | 12 | 24 | 12 | 50% |" in card
    assert "| instructions | CC BY-NC 4.0 | - | 9 | 8 | 33% |" in card
    assert "| instructions | left out: instruction without an answer | 1 |" in card
    assert "| lab-human | left out: row not drawn | 20 |" in card
    sides = Counter(row.side or "-" for row in rows)
    assert all(f"| {side} | {count} | {count / 24:.1%} |" in card for side, count in sides.items())
    tokens = read_json(tmp_path / "mix" / "sft" / "tokens.json")["tokens"]
    assert f"| speech | {tokens['speech']['min']} |" in card and "| exact |" in card
    assert "that are tested on, by id, title or text | 0 games left out" in card
