"""The report of the small study, and the commands that print claims."""

import dataclasses
import json
import math
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from analysis import cli, store
from analysis.claims import CLAIMS, claim, judge
from analysis.claims.wording import WHICH_RUNS
from analysis.plan import final_runs, read_study
from analysis.report import pictures
from analysis.report.page import FIGURES
from bench.findings import Judged, verdicts
from tests.analysis.test_claims import OWN

pytestmark = pytest.mark.usefixtures("quick_judgements")


@pytest.fixture
def with_losses(finished, tmp_path):
    """A copy of the small study in which one run failed and another was never run."""
    root = tmp_path / "out"
    shutil.copytree(finished[1], root)
    failed, absent = (root / f"runs/digits/symmetric-0.4/{name}/seed1.h5" for name in ("sgd", "ncsam"))
    failed.unlink()
    absent.unlink()
    store.write_failure(failed, "RuntimeError: <out of memory>")
    runs = final_runs(read_study(root / "study.toml"))
    records = {run.path: store.read_record(root / run.path) for run in runs if (root / run.path).exists()}
    store.write_index(root, runs, records)
    return root


def choose(root, *claims):
    """Writes into a folder's study that these claims are judged."""
    path = root / "study.toml"
    path.write_text(f"claims = {json.dumps(claims)}\n{path.read_text()}")


def test_the_report_is_one_page_that_asks_nothing_of_the_network_and_names_every_loss(with_losses, capsys):
    assert cli.main(["report", str(with_losses)]) == 0
    assert "report.html" in capsys.readouterr().out
    page = (with_losses / "report.html").read_text()
    assert re.findall(r'(?:src|href)="(?!data:image/svg\+xml;base64,|#)', page) == []
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)
    for name in CLAIMS:
        assert f' id="{name}">' in page
    # the answer and the pictures come before the verdicts, and these before what was not measured
    order = ['class="answer"', "<img", 'id="verdicts"', "<table", "<details><summary>Not measured"]
    assert sorted(order, key=page.index) == order
    assert "failed: runs/digits/symmetric-0.4/sgd/seed1.failed: RuntimeError: &lt;out of memory&gt;" in page
    assert "not run: NCSAM symmetric 40% seed 1" in page
    *lines, blank, which_runs = (with_losses / "claims.md").read_text().splitlines()
    assert (blank, which_runs) == ("", WHICH_RUNS)
    assert len(lines) == 2 + sum(len(one.predictions) for one in CLAIMS.values())
    assert len({line.count("|") for line in lines}) == 1


def test_the_same_results_give_the_same_report(finished, tmp_path):
    root = tmp_path / "out"
    shutil.copytree(finished[1], root)
    # those with figures of their data, and one more
    choose(root, *FIGURES, "M1")
    written = []
    for _ in range(2):
        assert cli.main(["report", str(root)]) == 0
        written.append((root / "report.html").read_bytes())
    assert written[0] == written[1]
    table = store.read_table(root)
    pd.testing.assert_frame_equal(pd.read_csv(root / "runs.csv"), table, check_dtype=False)


def test_pictures_of_one_place_read_no_results_of_others(finished):
    table = store.read_table(finished[1])
    results = pictures.results_shown(finished[1])

    def elsewhere(stored):
        """The same result of a later seed, in a file that cannot be read because it is not there."""
        later = stored.identity._replace(seed=stored.identity.seed + 1)
        return dataclasses.replace(stored, identity=later, path=stored.path / "missing")

    more = {name: [*found, *map(elsewhere, found)] for name, found in results.items()}
    assert any(results.values())
    assert pictures.landscapes(more, table) == pictures.landscapes(results, table)


def test_the_runs_can_be_had_as_parquet_with_their_types(undisturbed, tmp_path, monkeypatch, capsys):
    root = tmp_path / "out"
    shutil.copytree(undisturbed, root)
    choose(root, "L1")
    assert cli.main(["report", str(root), "--parquet"]) == 0
    pd.testing.assert_frame_equal(pd.read_parquet(root / "runs.parquet"), store.read_table(root))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert cli.main(["report", str(root), "--parquet"]) == 2
    assert "--parquet: needs pyarrow; install 'ncsam[parquet]'" in capsys.readouterr().err


def test_several_studies_are_judged_as_one_and_runs_that_are_in_two_are_refused(
    finished, tmp_path, capsys, monkeypatch
):
    one, other = finished[1], tmp_path / "other"
    shutil.copytree(one, other)
    assert cli.main(["claims", str(one), str(other)]) == 2
    assert (
        f"results: {one} and {other} both hold SGD, digits, symmetric 0%, seed 0; judge them apart"
        in " ".join(capsys.readouterr().err.split())
    )
    read = store.joined.read_table
    monkeypatch.setattr(
        store.joined,
        "read_table",
        lambda root: read(root).assign(dataset=root.name) if root == other else read(root),
    )
    written = tmp_path / "verdicts.md"
    assert cli.main(["claims", str(one), str(other), "--claim", "G1", "--markdown", str(written)]) == 0
    assert written.read_text().count("| G1 |") == 2


def test_studies_that_train_in_other_ways_on_the_same_data_are_not_judged_as_one(
    finished, tmp_path, capsys, monkeypatch
):
    one, other = finished[1], tmp_path / "other"
    shutil.copytree(one, other)
    written = other / "study.toml"
    written.write_text(written.read_text().replace("alignment_batches = ", "alignment_batches = 1"))
    read = store.joined.read_table
    # other seeds, so that no run is in both
    monkeypatch.setattr(
        store.joined,
        "read_table",
        lambda root: read(root).assign(seed=lambda t: t["seed"] + 10 * (root == other)),
    )
    assert cli.main(["claims", str(one), str(other), "--claim", "G1"]) == 0
    written.write_text(written.read_text().replace("    8,\n", "    9,\n"))
    assert cli.main(["claims", str(one), str(other), "--claim", "G1"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "train or measure in other ways on digits, symmetric noise (model.hidden: [8] and [9])" in said
    written.write_text((one / "study.toml").read_text().replace("sharpness_rho = 0.5", "sharpness_rho = 0.1"))
    assert cli.main(["claims", str(one), str(other), "--claim", "G1"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "(measure.sharpness_rho: 0.5 and 0.1); judge them apart" in said
    shutil.copy(one / "study.toml", written)
    monkeypatch.setattr(store.joined, "_data_of", str)
    assert cli.main(["claims", str(one), str(other), "--claim", "G1"]) == 2
    assert "had other data by the name of digits" in " ".join(capsys.readouterr().err.split())


def test_claims_are_listed_without_any_results(capsys):
    assert cli.main(["claims", "--list"]) == 0
    shown = capsys.readouterr().out
    assert re.findall(r"^([A-Z]\d+) +", shown, flags=re.M) == list(CLAIMS)


def test_one_claim_and_one_of_ones_own_can_be_asked_for(finished, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(claim, "CLAIMS", dict(CLAIMS))
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    # it writes its verdicts there
    out = tmp_path / "out"
    shutil.copytree(finished[1], out)
    assert cli.main(["claims", str(out), "--with", str(path), "--claim", "x1", "-v"]) == 0
    shown = capsys.readouterr().out
    assert "SAM ends with a lower test loss than SGD." in shown
    assert "needs runs of SAM" in shown
    assert "Theorem" not in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["claims"], "results: name a study's folder, or --list"),
        (["claims", "--list", "--claim", "Z9"], "--claim: unknown 'Z9'"),
        (["claims", "--list", "--claim", "L11"], "did you mean 'L1'?"),
        (["claims", "--list", "--with", "nowhere.py"], "--with: nowhere.py does not exist"),
        (["report", "nowhere"], "results: nowhere holds no study.h5"),
    ],
)
def test_what_cannot_be_reported_is_said_in_one_line(arguments, says, capsys):
    assert cli.main(arguments) == 2
    assert says in capsys.readouterr().err


def test_a_failure_of_any_bytes_is_told_and_a_noise_rate_in_its_digits(with_losses, monkeypatch):
    (with_losses / "runs/digits/symmetric-0.4/sgd/seed1.failed").write_bytes(b"\xff at " + b"/a" * 500)
    read = store.read_table
    monkeypatch.setattr(store, "read_table", lambda root: read(root).assign(noise_rate=0.4021))
    assert cli.main(["report", str(with_losses)]) == 0
    page = (with_losses / "report.html").read_text()
    assert "seed1.failed: \N{REPLACEMENT CHARACTER} at /a/a" in page
    assert "digits, symmetric 40.21%" in page
    # a phone is not scrolled sideways for it
    assert "overflow-wrap: break-word" in page


def test_figures_are_written_with_fonts_that_can_be_edited(finished):
    """TrueType; of Type 3, which matplotlib writes by default, journals take none."""
    for path in (finished[1] / "figures").glob("*.pdf"):
        assert b"/Type3" not in path.read_bytes()


def test_a_table_of_one_claim_has_the_p_values_of_the_command_line(finished, tmp_path):
    root = tmp_path / "out"
    shutil.copytree(finished[1], root)
    choose(root, "M1", "M3", "M4")
    assert cli.main(["claims", str(root), "--claim", "M1"]) == 0
    of_command = json.loads((root / "claims.json").read_text())[0]
    effects = [*of_command["effects"], *of_command["controls"]]
    shown = verdicts(Judged.of_results([root], ["M1"]))
    assert shown["effect"].tolist() == [effect["name"] for effect in effects]
    assert shown["verdict"].tolist() == [effect["verdict"] for effect in effects]
    p = [math.nan if effect["deciding_p"] is None else effect["deciding_p"] for effect in effects]
    np.testing.assert_array_equal(shown["p"], p)
    (alone,) = judge(store.read_table(root), [CLAIMS["M1"]])
    assert p[0] > alone.effects[0].deciding_p, "corrected over the family, not over the claim"
