"""Where a page's debates stand: the table and the reader, which room.js fills, and the policy that lets only it run."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jinja2

from debate_rl.report.debate_files import COLUMNS, DebateSet, dumped
from debate_rl.report.wording import bidi_shown, printable

GAP = "<!--the debates-->"
"""Stands in the page where they come; escaped text can not hold it."""
POLICY = "<!--the policy-->"


class Room(NamedTuple):
    """The debates that a page shows."""

    sets: Sequence[DebateSet]
    played: int
    """Debates of the run, of which these may be a sample."""
    parts: Mapping[str, str]
    """Parts that stand in the page itself; the others are files beside it."""


@cache  # compiling the templates takes longer than filling them
def plain_templates() -> jinja2.Environment:
    """The templates beside this file, without filters of their own; every value is escaped."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        # A misspelt name in a template fails in the tests instead of leaving a hole in the page.
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def complete(html: str, room: Room) -> str:
    """A page with its debates and its content security policy."""
    shown = sum(one.debates for one in room.sets)
    catalog = {"columns": COLUMNS, "sets": [[one.name, one.key, one.debates] for one in room.sets]}
    text = (
        plain_templates()
        .get_template("room.j2")
        .render(
            catalog=dumped(catalog),
            sets=room.sets,
            parts=room.parts,
            shown=shown,
            played=room.played,
            alone=bool(room.parts),
        )
    )
    before, after = html.split(GAP)
    whole = before + bidi_shown(printable(text)) + f"<script>{_script()}</script>" + after
    return whole.replace(POLICY, policy(loads_parts=not room.parts))


def policy(loads_parts: bool) -> str:
    """The content security policy: only our script runs, and what it loads itself."""
    allowed = f"'sha256-{base64.b64encode(hashlib.sha256(_script().encode()).digest()).decode()}'"
    # Under strict-dynamic a script that is allowed may add script elements; markup in the page still can not.
    dynamic = " 'strict-dynamic'" if loads_parts else ""
    return (
        f"default-src 'none'; script-src {allowed}{dynamic}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def _script() -> str:
    return (Path(__file__).parent / "room.js").read_text(encoding="utf-8")
