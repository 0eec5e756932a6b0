import json

import pytest

from debate_rl.data.sources.instructions import load_instructions
from debate_rl.errors import UserError

ALPACA = [
    {"instruction": "Give three tips.", "input": "", "output": "1. Sleep."},
    {"instruction": "Add these.", "input": "2, 3", "output": "5"},
    {"instruction": "Say nothing.", "output": " "},
]


@pytest.mark.parametrize("name", ["alpaca.json", "alpaca.jsonl"])
def test_alpaca_as_a_list_or_as_lines(tmp_path, name):
    path = tmp_path / name
    path.write_text(json.dumps(ALPACA) if name.endswith("json") else "\n".join(map(json.dumps, ALPACA)))
    found, empty = load_instructions(path)
    assert [(one.id, one.text, one.answer) for one in found] == [
        (f"{name}:1", "Give three tips.", "1. Sleep."), (f"{name}:2", "Add these.\n\n2, 3", "5"),
    ]  # fmt: skip
    assert empty == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not valid JSON"),
        ("{}", "expected a list"),
        ("[3]", "a.json:1: expected an object"),
        ('[{"instruction": "x", "output": "y"}, {"output": "y"}]', "a.json:2: needs a text 'instruction'"),
        ('[{"instruction": "x"}]', "a.json:1: needs a text 'output'"),
    ],
)
def test_mistakes(tmp_path, text, said):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=said):
        load_instructions(tmp_path / "a.json")
    with pytest.raises(UserError, match="need a path"):
        load_instructions(None)
