"""A study's plan: its TOML file as typed, checked settings, and the grid of runs that follows from them."""

from analysis.plan.choice import Choice
from analysis.plan.errors import StudyError
from analysis.plan.grid import Run, all_trials, final_runs, selection_runs
from analysis.plan.reading import read_study
from analysis.plan.study import Study

__all__ = ["Choice", "Run", "Study", "StudyError", "all_trials", "final_runs", "read_study", "selection_runs"]
