"""One static HTML page of a run, and model cards."""

from debate_rl.report.model_card import write_model_card
from debate_rl.report.page import write_report
from debate_rl.report.run_folder import load_run

__all__ = ["load_run", "write_model_card", "write_report"]
