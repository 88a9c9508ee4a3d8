"""Training under label noise with sharpness-aware methods.

noisy = corrupt_labels(train.targets, kind="symmetric", rate=0.4, seed=0)
method = NCSAM(model, loss_fn, rho=0.05, flip_ratio=0.4, strength=0.1)
method.backward(inputs, targets)        # where loss.backward() stood
"""

from ncsam.augmentation import Augmentation
from ncsam.datasets import DATASETS, Dataset, Split, load_dataset
from ncsam.label_noise import (
    NOISE_KINDS,
    NoisyLabels,
    corrupt_labels,
    human_labels,
    noise_options,
    read_human_labels,
)
from ncsam.methods import METHODS, NCSAM, SAM, OracleSAM, Plain, build_method, hyperparameters
from ncsam.models import MODELS, build_model, model_options
from ncsam.training import METRICS, History, fit, predict

__all__ = [
    "DATASETS",
    "METHODS",
    "METRICS",
    "MODELS",
    "NCSAM",
    "NOISE_KINDS",
    "SAM",
    "Augmentation",
    "Dataset",
    "History",
    "NoisyLabels",
    "OracleSAM",
    "Plain",
    "Split",
    "build_method",
    "build_model",
    "corrupt_labels",
    "fit",
    "human_labels",
    "hyperparameters",
    "load_dataset",
    "model_options",
    "noise_options",
    "predict",
    "read_human_labels",
]
