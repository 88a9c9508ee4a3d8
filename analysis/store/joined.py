"""Several studies read as one: their tables joined, after it was checked that they may be compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.plan.run_config import first_difference
from analysis.plan.study import MeasureSettings, NoiseSettings, TrainingSettings
from analysis.store.files import StoreError
from analysis.store.folder import written_study
from analysis.store.run_file import read_config
from analysis.store.table import read_table, run_files
from landscape.results.wording import percent
from ncsam.options import quoted

if TYPE_CHECKING:
    import pandas as pd

MEASURING = ("alignment_batches", "probe_epochs", "probe_samples", "probe_measures")
"""Keys of a study's training that do not change the trained weights."""

MEASURED = ("samples", "sharpness_rho", "sharpness_elementwise_rho", "sharpness_filter_rho")
"""Keys of a study's measurements that change the meaning of a number, and not only its error."""


def how_trained(root: Path) -> dict[str, Any]:
    """The settings of a study's training and measurements, without methods, noise rates and seeds.

    Raises:
        FileNotFoundError: the folder holds no study.
        StoreError: `study.toml` is no study.
    """
    study = written_study(root / "study.toml")
    training, noise, measure = (
        {**settings.later_defaults(), **study.get(name, {})}
        for name, settings in (
            ("training", TrainingSettings),
            ("noise", NoiseSettings),
            ("measure", MeasureSettings),
        )
    )
    training = {key: value for key, value in training.items() if key not in MEASURING}
    noise = {key: value for key, value in noise.items() if key != "rates"}
    measure = {key: value for key, value in measure.items() if key in MEASURED}
    samples: dict[str, Any] = {
        key: study[key] for key in ("train_samples", "test_samples", "image_size") if key in study
    }
    return {"model": study.get("model"), "training": training, "noise": noise, "measure": measure, **samples}


def read_tables(roots: Sequence[Path]) -> pd.DataFrame:
    """The tables of several studies as one table.

    Raises:
        FileNotFoundError, StoreError: as for `read_table`. Or two studies hold runs of the same method, data, noise and
            seed, between which a claim could not distinguish. Or they train or measure differently on the same data and
            noise, so that a claim must not compare their methods. Or they had different data of one name.
    """
    import pandas as pd  # a worker writes files without pandas, which loads slowly

    # studies are numbered, because words of pandas are UTF-8 and the name of a folder need not be
    tables = [read_table(root).assign(study=number) for number, root in enumerate(roots)]
    joined = pd.concat(tables, ignore_index=True)
    which = ["dataset", "noise_kind", "noise_rate", "method", "seed"]
    again = joined[joined.duplicated(which)]
    if len(again):
        first = again.iloc[0]
        before = joined[(joined[which] == first[which]).all(axis=1)]["study"].iloc[0]
        raise StoreError(
            f"results: {roots[before]} and {roots[first['study']]} both hold {first['method']}, {first['dataset']}, "
            f"{first['noise_kind']} {percent(first['noise_rate'])}, seed {first['seed']}; judge them apart"
        )
    trained = [how_trained(root) for root in roots] if len(roots) > 1 else []
    for (dataset, noise), of_data in joined.groupby(["dataset", "noise_kind"], sort=False):
        one, *others = of_data["study"].unique()
        for other in others:
            if trained[one] != trained[other]:
                field, *both = first_difference(trained[one], trained[other])
                raise StoreError(
                    f"results: {roots[one]} and {roots[other]} train or measure in other ways on {dataset}, "
                    f"{noise} noise ({field}: {quoted(both[0])} and {quoted(both[1])}); judge them apart"
                )
            data = {_data_of(roots[one]), _data_of(roots[other])} - {""}
            if len(data) > 1:
                raise StoreError(
                    f"results: {roots[one]} and {roots[other]} had other data by the name of {dataset}; "
                    "judge them apart"
                )
    return joined


def _data_of(root: Path) -> str:
    """The digest of a study's data; empty if its files are older than these digests."""
    return read_config(run_files(root)[0]).data
