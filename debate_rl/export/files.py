"""Tables written as CSV, as Parquet, and as a folder that `datasets.load_dataset` reads."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from debate_rl.errors import UserError
from debate_rl.export.tables import Row, Tables
from debate_rl.records import write_pieces, write_text

if TYPE_CHECKING:
    import pandas as pd

FLAGS = ("right", "complete")
"""Columns of yes and no, which may hold nothing."""
NUMBERS = ("p_a", "p_b", "p_correct", "p_first", "elo_low", "elo_high", "win_rate_low", "win_rate_high")
"""Columns of numbers, which may hold nothing."""
MEANING = {
    "debates": "one debate a row: question, answers, players and every speech with the number of its checked quotes",
    "preferences": "two speeches to one prompt: the chosen and the rejected, with the judge's probability after each",
    "verdicts": "one verdict a row: the judge's probability of each answer, and which is correct",
    "questions": "the questions with the texts that the debaters read",
    "ratings": "Bradley-Terry ratings of the players on the Elo scale, with 95 % intervals over stories",
    "matches": "two games on one question with sides swapped, and who won",
}


def frame(rows: list[Row]) -> pd.DataFrame:
    """A data frame in which an empty cell has the same type in every file."""
    import pandas as pd

    table = pd.DataFrame(rows)
    for name in FLAGS:
        if name in table:
            table[name] = table[name].astype("boolean")
    for name in NUMBERS:
        if name in table:
            table[name] = table[name].astype("float64")
    # A column without any value would have no type, and no two such files could be joined.
    for name in table.columns:
        if table[name].isna().all() and name not in (*FLAGS, *NUMBERS):
            table[name] = table[name].astype("string")
    return table


def write_csv(tables: Tables, out: Path) -> list[Path]:
    """Write NAME.csv for every table with rows; lists in a cell are JSON."""
    paths = []
    for name, rows in _filled(tables).items():
        flat = [{key: _cell(value) for key, value in row.items()} for row in rows]
        path = out / f"{name}.csv"
        # Line ends as in RFC 4180: with "\n" alone a cell that holds a "\r" stands bare, and readers end it there.
        write_text(path, frame(flat).to_csv(index=False, lineterminator="\r\n"))
        paths.append(path)
    return paths


def write_parquet(tables: Tables, out: Path) -> list[Path]:
    """Write NAME.parquet for every table with rows; lists stay lists."""
    paths = []
    for name, rows in _filled(tables).items():
        path = out / f"{name}.parquet"
        write_pieces(path, [_parquet(rows)])
        paths.append(path)
    return paths


def write_dataset(tables: Tables, out: Path, title: str) -> list[Path]:
    """Write a data set of the hub: NAME/train.parquet for every table with rows, and README.md, its card.

    Args:
        tables: each becomes a configuration of the data set.
        out: the folder.
        title: name of the run, for the card.
    """
    filled = _filled(tables)
    paths = []
    for name, rows in filled.items():
        path = out / name / "train.parquet"
        write_pieces(path, [_parquet(rows)])
        paths.append(path)
    # Last, so that a card never names a table that is not there yet.
    write_text(out / "README.md", _card(filled, title))
    return [*paths, out / "README.md"]


def check_push(repository: str) -> None:
    """Refuse an upload that can not succeed, before anything is written.

    Raises:
        UserError: the hub is switched off, nobody is logged in, or the name is no name of the hub.
    """
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UserError(f"--push {repository}: write OWNER/NAME or NAME, of letters, digits, . _ and -") from error
    if constants.HF_HUB_OFFLINE:
        raise UserError(f"--push {repository}: the hub is switched off (HF_HUB_OFFLINE); unset it, or leave --push out")
    if get_token() is None:
        raise UserError(f"--push {repository}: nobody is logged in; run `hf auth login`, or set HF_TOKEN")


def push(out: Path, repository: str, kind: Literal["dataset", "model"]) -> str:
    """Upload a folder to the hub as a private data set or model, as it lies on disk.

    Returns:
        Address of what was made.

    Raises:
        UserError: the hub can not be reached or refuses.
    """
    from huggingface_hub import HfApi

    hub = HfApi()
    try:
        # Private: texts of a run may belong to others, and what was public once can not be taken back.
        made = hub.create_repo(repository, repo_type=kind, private=True, exist_ok=True)
        hub.upload_folder(repo_id=made.repo_id, folder_path=out, repo_type=kind, commit_message="debate-rl export")
    except Exception as error:
        # The hub's client has changed its network library between versions, and so the errors of a missing network.
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(f"--push {repository}: not uploaded ({reason}); the folder {out} is complete") from error
    return str(made)


def _filled(tables: Mapping[str, list[Row]]) -> Tables:
    """The tables that have rows.

    Raises:
        UserError: none has.
    """
    filled = {name: rows for name, rows in tables.items() if rows}
    if not filled:
        raise UserError("no finished stage of this run has debates, ratings or preferences; there is nothing to export")
    return filled


def _cell(value: object) -> object:
    """A value as CSV holds it."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def _parquet(rows: list[Row]) -> bytes:
    buffer = io.BytesIO()
    frame(rows).to_parquet(buffer, index=False)
    return buffer.getvalue()


def _card(tables: Tables, title: str) -> str:
    """The card: configurations for `load_dataset`, then what each table holds."""
    head = ["---", "configs:"]
    for name in tables:
        head += [f"- config_name: {name}", "  data_files:", "  - split: train", f"    path: {name}/train.parquet"]
    head += ["tags:", "- debate", "- debate-rl", "---", ""]
    lines = [
        f"# {title}",
        "",
        f"Written by `debate-rl export` (debate-rl {version('debate-rl')}). The speeches were written by models.",
        "Questions and texts keep the licences of their sources.",
        "",
        "| configuration | rows | what it holds |",
        "|---|---|---|",
    ]
    for name, rows in tables.items():
        lines.append(f"| `{name}` | {len(rows)} | {MEANING[name]} |")
    lines += [
        "",
        "```python",
        "from datasets import load_dataset",
        "",
        f'rows = load_dataset("FOLDER_OR_NAME", "{next(iter(tables))}", split="train")',
        "```",
        "",
    ]
    return "\n".join([*head, *lines])
