import io
import re

from rich.console import Console

from debate_rl.analysis.effects.row import EffectRow
from debate_rl.cli.show import show_effects
from debate_rl.intervals import Estimate


def row(group, name, **changes):
    estimate = Estimate(value=21.26, low=-3.0, high=44.0, n=80, clusters=40)
    return EffectRow(
        **{"group": group, "name": name, "estimate": estimate, "seeds": (20.0, None), "unit": "points", **changes}
    )


def printed(rows, seeds, width=None):
    out = io.StringIO()
    show_effects(
        rows,
        seeds,
        Console(file=out, highlight=False, width=width, force_terminal=width is not None, color_system=None),
    )
    return out.getvalue()


def test_every_effect_is_a_line_with_its_seeds_beside_it():
    rows = [
        row("skill", "sft over base"),
        row("skill", "dpo [over] sft", shown="yes"),
        row("judge", "PGR", estimate=None, note="no gap", unit="PGR", seeds=(0.257, None)),
    ]
    text = printed(rows, [0, 7])
    cells = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines() if line.strip(" \u2500")]
    assert cells[1:] == [
        ["skill"],
        ["sft over base", "21.3 [-3.0, 44.0]", "points", "20.0", "-", "-"],
        ["dpo [over] sft", "21.3 [-3.0, 44.0]", "points", "20.0", "-", "yes"],
        ["judge"],
        ["PGR (no gap)", "undefined", "PGR", "0.26", "-", "-"],
    ]
    assert "seed 7" in text and "seed" not in printed(rows, [0])


def test_lines_are_broken_at_the_edge_of_a_terminal_only():
    rows = [row("skill", "a player of a long name over another of a long name", seeds=(1.0,) * 3)]
    assert rows[0].name in printed(rows, [0, 1, 2])
    narrow = printed(rows, [0, 1, 2], width=70)
    assert max(map(len, narrow.splitlines())) <= 70 and rows[0].name not in narrow and rows[0].text in narrow
