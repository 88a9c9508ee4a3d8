"""Studies whose runs are committed are judged again by the rules of today, and have the verdicts of their tables."""

import pandas as pd
import pytest

from bench.findings import RUNS, Judged, verdicts
from tests.doc_pages import sentences_of, table_named

STUDIES = sorted(path.stem for path in RUNS.glob("*.csv"))


def test_the_page_names_the_studies():
    named = f"the tables whose runs are in `docs/tables/runs`: {', '.join(STUDIES)}."
    assert named in sentences_of("findings")


@pytest.mark.parametrize("study", [name for name in STUDIES if name != "quick"])
def test_committed_runs_have_the_committed_verdicts(study):
    """The quick study is left out, because its test would take a minute."""
    found = verdicts(Judged.of_file(RUNS / f"{study}.csv")).replace("", float("nan"))
    pd.testing.assert_frame_equal(found, table_named(f"{study}-verdicts"), rtol=1e-5, check_dtype=False)
