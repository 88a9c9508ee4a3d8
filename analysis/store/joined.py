"""Several studies as one: their tables joined, if claims can compare their runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.plan.run_config import first_difference
from analysis.store.files import StoreError
from analysis.store.folder import written_study
from analysis.store.run_file import read_config
from analysis.store.table import read_table, run_files

MEASURING = ("alignment_batches", "probe_epochs", "probe_samples")
"""Keys of a study's training that leave the training as it is."""


MEASURED = ("samples", "sharpness_rho", "sharpness_elementwise_rho", "sharpness_filter_rho")
"""Keys of a study's measurements that change what a number means, and not only its error."""


def how_trained(root: Path) -> dict[str, Any]:
    """What a study trains and measures, and how, whatever its methods, noise rates and seeds.

    Raises:
        FileNotFoundError: no study in the folder.
        StoreError: `study.toml` is no study's.
    """
    study = written_study(root / "study.toml")
    training = {key: value for key, value in study.get("training", {}).items() if key not in MEASURING}
    noise = {key: value for key, value in study.get("noise", {}).items() if key != "rates"}
    measure = {key: value for key, value in study.get("measure", {}).items() if key in MEASURED}
    samples: dict[str, Any] = {
        key: study[key] for key in ("train_samples", "test_samples", "image_size") if key in study
    }
    return {"model": study.get("model"), "training": training, "noise": noise, "measure": measure, **samples}


def read_tables(roots: Sequence[Path]) -> pd.DataFrame:
    """The tables of several studies as one.

    Raises:
        FileNotFoundError, StoreError: as `read_table` does; or two studies hold runs that a claim could not tell
            apart, of the same method, data, noise and seed; or train or measure in other ways on the same data and
            noise, where a claim would compare their methods; or had other data of the same name.
    """
    # by number: pandas' words are UTF-8, and a folder's name need not be
    tables = [read_table(root).assign(study=number) for number, root in enumerate(roots)]
    joined = pd.concat(tables, ignore_index=True)
    which = ["dataset", "noise_kind", "noise_rate", "method", "seed"]
    again = joined[joined.duplicated(which)]
    if len(again):
        first = again.iloc[0]
        before = joined[(joined[which] == first[which]).all(axis=1)]["study"].iloc[0]
        raise StoreError(
            f"results: {roots[before]} and {roots[first['study']]} both hold {first['method']}, {first['dataset']}, "
            f"{first['noise_kind']} {first['noise_rate']:.0%}, seed {first['seed']}; judge them apart"
        )
    trained = [how_trained(root) for root in roots] if len(roots) > 1 else []
    for (dataset, noise), of_data in joined.groupby(["dataset", "noise_kind"], sort=False):
        one, *others = of_data["study"].unique()
        for other in others:
            if trained[one] != trained[other]:
                field, *both = first_difference(trained[one], trained[other])
                raise StoreError(
                    f"results: {roots[one]} and {roots[other]} train or measure in other ways on {dataset}, "
                    f"{noise} noise ({field}: "
                    f"{both[0]!r} and {both[1]!r}); judge them apart"
                )
            data = {_data_of(roots[one]), _data_of(roots[other])} - {""}
            if len(data) > 1:
                raise StoreError(
                    f"results: {roots[one]} and {roots[other]} had other data by the name of {dataset}; "
                    "judge them apart"
                )
    return joined


def _data_of(root: Path) -> str:
    """The digest of a study's data; empty if its files are older than such digests."""
    return read_config(run_files(root)[0]).data
