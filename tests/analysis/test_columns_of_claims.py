"""Which columns of runs.csv a claim may name."""

import numpy as np
import pytest

from analysis.claims import SAM, SGD, Association, Claim, Difference, Holds, Level, Trend, judge
from tests.analysis.synthetic_study import table

pytestmark = pytest.mark.usefixtures("quick_judgements")


def judged_alone(prediction, runs):
    (judgement,) = judge(runs, [Claim("X1", "statement", "place", [prediction])])
    return judgement.effects[0]


@pytest.mark.parametrize(
    ("prediction", "field"),
    [
        (Difference("loss", SAM, SGD, -1), "quantity"),
        (Level("noise_kind", SAM, 1), "quantity"),
        (Trend("loss", SAM, 1), "quantity"),
        (Association("test_accuracy", "loss", 1), "outcome"),
        (Association("test_accuracy", "train_loss", 1, given="loss"), "given"),
        (Holds("test_accuracy", 0.05, vacuous="loss"), "vacuous"),
    ],
)
def test_a_column_of_text_is_refused_by_claim_and_field(prediction, field):
    with pytest.raises(
        ValueError, match=f"{field}: claim 'X1' names '.*', which holds text; take a column of"
    ):
        judged_alone(prediction, table())


@pytest.mark.parametrize("mark", ["diverged", "failed"])
def test_marks_of_runs_that_do_not_count_are_refused_with_the_reason(mark):
    with pytest.raises(
        ValueError, match=f"quantity: claim 'X1' names '{mark}': runs that diverged or failed are"
    ):
        judged_alone(Difference(mark, SAM, SGD, -1), table())


@pytest.mark.parametrize("kind", [bool, object])
def test_a_mark_is_a_number_of_0_or_1(kind):
    runs = table(seeds=4)
    mark = (runs["method"] == "SAM") & (runs["seed"] < 3)
    effect, of_numbers = (
        judged_alone(Difference("mark", SAM, SGD, 1), runs.assign(mark=mark.astype(some)))
        for some in (kind, np.float64)
    )
    assert effect.estimate == 0.75
    assert effect.finding == of_numbers.finding
