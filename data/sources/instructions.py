"""Instructions with answers, to mix into SFT so that a debater stays an assistant (Arnesen et al. 2024: Alpaca)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from debate_rl.errors import UserError, existing
from debate_rl.records import Record, lines, read_json


class Instruction(Record):
    """A request to an assistant, and its answer.

    Example:
        Instruction(id="alpaca_data.json:1", text="Give three tips for staying healthy.", answer="1. Eat ...")
    """

    id: str
    """File and place."""
    text: str
    """The instruction and, after a blank line, its input."""
    answer: str


def load_instructions(path: str | Path | None) -> tuple[list[Instruction], int]:
    """Read instructions in Alpaca's form: a JSON list, or JSON lines, of {instruction, input, output}.

    Returns:
        The instructions, and how many were left out because they have no answer.

    Raises:
        UserError: no path, no such file, or a malformed entry (names file and place).
    """
    if path is None:
        raise UserError(
            "transcripts 'instructions' need a path: Alpaca's JSON, or JSON lines of instruction and output"
        )
    instructions = []
    without_answer = 0
    for place, value in _entries(existing(path, "instructions")):
        instruction = value.get("instruction", "")
        context = value.get("input", "")
        answer = value.get("output", "")
        if not isinstance(instruction, str) or not instruction.strip() or not isinstance(context, str):
            raise UserError(f"{path}:{place}: needs a text 'instruction' (and 'input', if any, as text)")
        # A field that is not there is a mistake in the file; an empty answer is not, Alpaca has some.
        if "output" not in value or not isinstance(answer, str):
            raise UserError(f"{path}:{place}: needs a text 'output'")
        if not answer.strip():
            without_answer += 1
            continue
        text = instruction.strip()
        if context.strip():
            text = f"{text}\n\n{context.strip()}"
        instructions.append(Instruction(id=f"{Path(path).name}:{place}", text=text, answer=answer))
    return instructions, without_answer


def _entries(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Place (line, or entry of a list) and value of each entry."""
    if path.suffix == ".jsonl":
        yield from lines(path)
        return
    values = read_json(path)
    if not isinstance(values, list):
        raise UserError(f"{path}: expected a list of instructions, found {type(values).__name__}")
    # From 1, as lines are counted.
    for place, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            raise UserError(f"{path}:{place}: expected an object with instruction and output")
        yield place, value
