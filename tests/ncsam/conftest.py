"""Data that several tests of training share."""

import pytest

from ncsam import corrupt_labels, load_dataset


@pytest.fixture(scope="module")
def digits():
    """The digits, and their labels with 40% symmetric noise."""
    dataset = load_dataset("digits")
    return dataset, corrupt_labels(dataset.train.targets, rate=0.4, seed=0)


@pytest.fixture(scope="module")
def planted():
    """The digits, and their labels with 20% symmetric noise: wrong labels to be found."""
    dataset = load_dataset("digits")
    return dataset, corrupt_labels(dataset.train.targets, kind="symmetric", rate=0.2, seed=0)
