"""The experiment and the judgement: studies, runs, results on disk, claims and verdicts."""
