"""Studies, their runs, results on disk, claims and verdicts."""
