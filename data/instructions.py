"""Instructions with answers, to mix into SFT so that a debater stays an assistant (Arnesen et al. 2024: Alpaca)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from debate_rl.data.left_out import LeftOut
from debate_rl.errors import UserError, existing
from debate_rl.records import Record, lines, read_json
from debate_rl.text_file import plain_suffix


class Instruction(Record):
    """What an assistant is asked, and its answer.

    Example:
        Instruction(id="alpaca_data.json:1", text="Give three tips for staying healthy.", answer="1. Eat ...")
    """

    id: str
    """File and place."""
    text: str
    """The instruction and, after a blank line, what it is about."""
    answer: str


def load_instructions(path: str | Path | None) -> tuple[list[Instruction], dict[str, int]]:
    """Read instructions in Alpaca's form: a JSON list, or JSON lines, of {instruction, input, output}.

    Returns:
        The instructions, and how many were left out, by reason and first places.

    Raises:
        UserError: no path, no such file, no list of entries, or none of them can be used (names file and place).
    """
    if path is None:
        raise UserError(
            "transcripts 'instructions' need a path: Alpaca's JSON, or JSON lines of instruction and output"
        )
    found: list[Instruction] = []
    left_out = LeftOut("instructions")
    for place, value in _entries(existing(path, "instructions")):
        fault = _fault(value)
        if fault is not None:
            left_out.add(fault, f"{path}:{place}")
            continue
        parts = (value["instruction"], value.get("input") or "")
        text = "\n\n".join(part.strip() for part in parts if part.strip())
        found.append(Instruction(id=f"{Path(path).name}:{place}", text=text, answer=value["output"]))
    left_out.say(len(found))
    return found, left_out.named()


def _fault(value: Any) -> str | None:
    """Why an entry can not be used; None where it can."""
    if not isinstance(value, dict):
        return "expected an object with instruction and output"
    instruction, answer = value.get("instruction"), value.get("output")
    if not isinstance(instruction, str) or not instruction.strip():
        return "needs a text 'instruction'"
    if not isinstance(value.get("input") or "", str):
        return "needs 'input', if any, as text"
    if not isinstance(answer, str):
        return "needs a text 'output'"
    return None if answer.strip() else "instruction without an answer"


def _entries(path: Path) -> Iterator[tuple[int, Any]]:
    """Place (line, or entry of a list) and value of each entry."""
    if plain_suffix(path) == ".jsonl":
        yield from lines(path)
        return
    values = read_json(path)
    if not isinstance(values, list):
        raise UserError(f"{path}: expected a list of instructions, found {type(values).__name__}")
    yield from enumerate(values, start=1)
