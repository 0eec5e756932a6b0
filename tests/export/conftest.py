"""Runs to export: those of the report's tests."""

from tests.report.conftest import made, run_folder

__all__ = ["made", "run_folder"]
