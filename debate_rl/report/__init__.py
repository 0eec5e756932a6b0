"""One static HTML page of a run, and model cards."""

from debate_rl.report.page import write_report
from debate_rl.report.run_folder import load_run
from debate_rl.trainers.common.model_card import write_model_card

__all__ = ["load_run", "write_model_card", "write_report"]
