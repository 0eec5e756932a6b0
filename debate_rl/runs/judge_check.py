"""The check of a judge before games are bought with it: one line, warnings, and a file in the stage's folder."""

from __future__ import annotations

from pathlib import Path

from debate_rl.data.models import SHIPPED
from debate_rl.judges.grid import GRID_FILE, grid_of
from debate_rl.judges.judge import Judge
from debate_rl.judges.signal import SIGNAL_FILE, Signal, measure_signal
from debate_rl.records import read_json, write_json
from debate_rl.runs.run import Run


def wants_check(run: Run) -> bool:
    """Whether the judge of the stage at work is checked before its games (see `judge.check`)."""
    wanted = run.config.judge.check
    judge = run.judge()
    if wanted is not None or not isinstance(judge, Judge):
        return bool(wanted)
    # A judge that the run trained reads debates, and without any it may have no signal.
    trained = judge.model != (run.config.judge.model or run.config.models.judge) or judge.adapter is not None
    return not trained and Path(run.resolve(judge.model)).parent != SHIPPED


def say_grid(run: Run, out: Path) -> None:
    """Say that a stage's verdicts lie on a grid, where they do, and keep it in the stage's folder for the page."""
    grid = grid_of(out)
    if grid.matters:
        write_json(out / GRID_FILE, grid.model_dump(mode="json"))
        run.say(f"  warning: {grid.line}")


def check_judge(run: Run, out: Path) -> None:
    """Measure the signal of the stage's judge on training questions, say it, and keep it in the stage's folder.

    Judges that are not read by the probabilities of their answers are passed over.

    Raises:
        UserError: the judge's model is missing, or its engine can not be read as `judge.readout` wants.
    """
    judge = run.judge()
    if not isinstance(judge, Judge):
        return
    questions = run.questions("train")
    signal = measure_signal(questions, judge, run.protocol("blind"), run.protocol("open_book"), run.engine)
    if signal is None:
        run.say(f"  judge {judge.name!r} could not be checked: no training question with a known answer got a verdict")
        return
    # The stages of one judge measure the same, and the store answers them: it is said once.
    before = [Signal.model_validate(read_json(path)) for path in sorted(run.folder.glob(f"[!.]*/{SIGNAL_FILE}"))]
    write_json(out / SIGNAL_FILE, signal.model_dump(mode="json"))
    if signal in before:
        return
    run.say(f"  {signal.line}")
    for warning in signal.warnings:
        run.say(f"  warning: judge {signal.judge!r}: {warning}")
