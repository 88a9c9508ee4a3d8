"""A finished training counts as finished for good: its fingerprint is, to the byte, what it always was.

`files/fingerprints.tsv` was written by a version whose configurations were compared with those of version 0.1.
Seeds that a study got since then added runs.
"""

import csv
import hashlib
from pathlib import Path

import pytest

from analysis import store
from analysis.plan import final_runs, read_study, selection_runs
from tests.analysis.small_study import STUDY as SMALL
from tests.analysis.test_study import GOOD
from tests.analysis.test_training_settings import STUDY as SETTINGS_OF_FEW_SAMPLES
from tests.analysis.tiny_study import TINY

ROWS = list(csv.DictReader((Path(__file__).parent / "files/fingerprints.tsv").open(), delimiter="\t"))
LOSSES = TINY.replace(
    'name = "plain"\nlabel = "SGD"',
    """name = "plain"
label = "SLN"
loss = { name = "sln", sigma = 0.5 }
[[methods]]
name = "sam"
rho = [0.05, 0.2]
loss = { name = "sce", alpha = 0.1, beta = 0.5 }
""",
)
# as it was when the file was written
SETTINGS = SETTINGS_OF_FEW_SAMPLES.replace("test_samples = 100\n", "").replace(
    "probe_samples = 50", "probe_samples = 100"
)

TEXTS = {
    "tests/losses": LOSSES,
    "tests/tiny": TINY,
    "tests/small": SMALL,
    "tests/settings": SETTINGS,
    "tests/good": GOOD,
}


@pytest.mark.parametrize("row", ROWS, ids=[row["study"] for row in ROWS])
def test_every_run_has_the_fingerprint_that_it_always_had(row, tmp_path, pytestconfig):
    path = pytestconfig.rootpath / "studies" / f"{row['study']}.toml"
    if row["study"] in TEXTS:
        path = tmp_path / "study.toml"
        path.write_text(TEXTS[row["study"]])
    study = read_study(path)
    finals = final_runs(study)
    trials = list({trial.path: trial for run in finals for trial in selection_runs(study, run)}.values())
    text = "".join(f"{run.path} {run.config.training_fingerprint}\n" for run in finals + trials)
    assert {
        "study": row["study"],
        "final runs": str(len(finals)),
        "trials": str(len(trials)),
        "first final run": finals[0].config.training_fingerprint,
        "first trial": trials[0].config.training_fingerprint if trials else "-",
        "all paths and fingerprints": hashlib.sha256(text.encode()).hexdigest(),
    } == row


def test_a_configuration_read_from_a_file_has_the_fingerprint_that_is_written_beside_it(finished):
    path, out = finished
    study = read_study(path)
    finals = final_runs(study)
    for run in [*finals, *selection_runs(study, finals[-1])]:
        with store.opened(out / run.path) as file:
            written = file["config"].attrs["fingerprint"]
        assert store.read_config(out / run.path).config == run.config
        assert store.read_config(out / run.path).config.fingerprint == run.fingerprint == written


def test_how_a_run_is_measured_does_not_change_which_training_it_is(tmp_path):
    def of(text):
        path = tmp_path / "study.toml"
        path.write_text(text)
        return final_runs(read_study(path))[0].config.training_fingerprint

    probed = TINY.replace("epochs = 3", "epochs = 3\nprobe_epochs = [2]")
    assert of(TINY) == of(TINY.replace("sharpness_steps = 2", "sharpness_steps = 30\nsharpness_rho = 0.1"))
    assert of(TINY) != of(TINY.replace("epochs = 3", "epochs = 4"))
    # the probes of the training measure sharpness too
    assert of(probed) == of(probed.replace("sharpness_steps = 2", "sharpness_steps = 30"))
    assert of(probed) != of(probed.replace("[measure]", "[measure]\nsharpness_rho = 0.1"))
