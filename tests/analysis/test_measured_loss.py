"""The loss of every measure is the cross-entropy, whatever loss a method trains with, and all names say so."""

import pytest
from torch import nn

from analysis.plan import final_runs, read_study
from analysis.report.figure_files import LOSS_NAMES, SPECTRUM_NAME
from analysis.report.results import MEANING
from analysis.run.context import RunContext
from analysis.run.measurements import Subject
from analysis.run.probes import LANDSCAPE_METRICS
from analysis.run.run_data import load_run_data
from ncsam import build_model
from ncsam.losses import GeneralizedCrossEntropy
from tests.analysis.tiny_study import TINY


@pytest.mark.parametrize("loss", ['"gce"', '{ name = "cross-entropy", label_smoothing = 0.5 }'])
def test_the_measured_loss_of_a_method_with_another_loss_is_the_cross_entropy(loss, tmp_path):
    file = tmp_path / "study.toml"
    file.write_text(TINY.replace('name = "plain"', f'name = "plain"\nloss = {loss}'))
    run = final_runs(read_study(file))[0]
    data = load_run_data(run.config, RunContext(tmp_path))
    model = build_model("mlp", (1, 8, 8), 10, seed=0, hidden=[4]).eval()
    subject = Subject(model, run.config, data)
    samples = subject.samples["train"]
    outputs, labels = model(data.train.batch(samples)), data.labels.observed[samples]
    measured = subject.objectives["observed"].value()
    assert measured == pytest.approx(nn.functional.cross_entropy(outputs, labels).item(), rel=1e-5)
    for other in (GeneralizedCrossEntropy(), nn.CrossEntropyLoss(label_smoothing=0.5)):
        assert measured != pytest.approx(other(outputs, labels).item(), rel=1e-3)


@pytest.mark.parametrize(
    "words",
    [MEANING, SPECTRUM_NAME, *LOSS_NAMES.values(), *(words for _, words in LANDSCAPE_METRICS.values())],
)
def test_no_name_of_a_measure_says_that_it_is_of_the_training_loss(words):
    assert "of the training loss" not in words
    assert "cross-entropy" in words or "that eigenvalue" in words
