"""Data that several tests of training share."""

import pytest

from ncsam import corrupt_labels, load_dataset


@pytest.fixture(scope="module")
def digits():
    """The digits, and their labels with 40% symmetric noise."""
    dataset = load_dataset("digits")
    return dataset, corrupt_labels(dataset.train.targets, rate=0.4, seed=0)
