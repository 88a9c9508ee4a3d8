"""Label noise by name, synthetic or human. The true labels are kept beside the wrong ones. One file a family.

noisy = corrupt_labels(train.targets, kind="symmetric", rate=0.4, seed=0)
noisy = human_labels(train.targets, read_human_labels("cifar-10n", "worst")[dataset.train_indices])
"""

from ncsam.label_noise.corruption import (
    NOISE_KINDS,
    NOISE_REGISTRY,
    NoiseKind,
    NoiseOption,
    corrupt_labels,
    human_labels,
    noise_options,
)
from ncsam.label_noise.human import read_human_labels
from ncsam.label_noise.labels import Corruption, NoisyLabels, empirical_transition
from ncsam.label_noise.matrix import TRANSITION_MATRICES

__all__ = [
    "NOISE_KINDS",
    "NOISE_REGISTRY",
    "TRANSITION_MATRICES",
    "Corruption",
    "NoiseKind",
    "NoiseOption",
    "NoisyLabels",
    "corrupt_labels",
    "empirical_transition",
    "human_labels",
    "noise_options",
    "read_human_labels",
]
