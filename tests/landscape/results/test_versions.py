"""Which versions wrote a result."""

import importlib.metadata
import json

import h5py
import numpy as np
import torch
from torch.nn.functional import cross_entropy

from landscape import Objective, average_sharpness, load, save
from tests.conftest import build


def test_a_stored_result_says_by_which_versions_and_a_file_that_does_not_is_read(tmp_path):
    objective = Objective(build("mlp")[0], cross_entropy, build("mlp")[1:])
    file = tmp_path / "results.h5"
    save(file, "loss", average_sharpness(objective, max_draws=8))
    with h5py.File(file, "a") as opened:
        versions = json.loads(opened["loss"].attrs["versions"])
        assert (versions["torch"], versions["numpy"]) == (torch.__version__, np.__version__)
        assert versions["ncsam"] == importlib.metadata.version("ncsam")
        whole = load(opened, "loss")
        del opened["loss"].attrs["versions"]
    assert load(file, "loss") == whole
