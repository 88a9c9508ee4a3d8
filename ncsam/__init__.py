"""Training under label noise with sharpness-aware methods.

::

    noisy = corrupt_labels(train.targets, kind="symmetric", rate=0.4, seed=0)
    method = NCSAM(model, loss_fn, rho=0.05, flip_ratio=0.4, strength=0.1)
    method.backward(inputs, targets)        # where loss.backward() stood
"""

from ncsam.augmentation import Augmentation
from ncsam.checkpoint import CheckpointError
from ncsam.datasets import DATASET_REGISTRY, DATASETS, Dataset, Loaded, Split, load_dataset, make_dataset
from ncsam.detection import (
    ConfidentJoint,
    Detection,
    DetectionQuality,
    confident_joint,
    cross_validated_probabilities,
    detect,
)
from ncsam.dynamics import TrainingDynamics
from ncsam.evaluation import predict
from ncsam.label_noise import (
    NOISE_KINDS,
    NOISE_REGISTRY,
    NoiseKind,
    NoisyLabels,
    corrupt_labels,
    human_labels,
    noise_options,
    read_human_labels,
)
from ncsam.layout import in_fastest_layout
from ncsam.losses import (
    LOSS_REGISTRY,
    LOSSES,
    EarlyLearningRegularization,
    ForwardCorrection,
    GeneralizedCrossEntropy,
    StochasticLabelNoise,
    SymmetricCrossEntropy,
    build_loss,
    estimated_transition,
    loss_options,
    mixup,
)
from ncsam.methods import (
    ASAM,
    BSAM,
    CORES2,
    GSAM,
    METHOD_REGISTRY,
    METHODS,
    NCSAM,
    SAM,
    SANER,
    ClusterNCSAM,
    CoTeaching,
    FriendlySAM,
    JacobianSAM,
    LogitSAM,
    Method,
    OracleSAM,
    Plain,
    build_method,
    hyperparameters,
)
from ncsam.models import MODEL_REGISTRY, MODELS, build_model, model_options
from ncsam.schedules import SCHEDULES, build_schedule, schedule_options
from ncsam.training import METRICS, History, fit
from ncsam_command import warn_of_hidden_packages

__all__ = [
    "ASAM",
    "BSAM",
    "CORES2",
    "DATASETS",
    "DATASET_REGISTRY",
    "GSAM",
    "LOSSES",
    "LOSS_REGISTRY",
    "METHODS",
    "METHOD_REGISTRY",
    "METRICS",
    "MODELS",
    "MODEL_REGISTRY",
    "NCSAM",
    "NOISE_KINDS",
    "NOISE_REGISTRY",
    "SAM",
    "SANER",
    "SCHEDULES",
    "Augmentation",
    "CheckpointError",
    "ClusterNCSAM",
    "CoTeaching",
    "ConfidentJoint",
    "Dataset",
    "Detection",
    "DetectionQuality",
    "EarlyLearningRegularization",
    "ForwardCorrection",
    "FriendlySAM",
    "GeneralizedCrossEntropy",
    "History",
    "JacobianSAM",
    "Loaded",
    "LogitSAM",
    "Method",
    "NoiseKind",
    "NoisyLabels",
    "OracleSAM",
    "Plain",
    "Split",
    "StochasticLabelNoise",
    "SymmetricCrossEntropy",
    "TrainingDynamics",
    "build_loss",
    "build_method",
    "build_model",
    "build_schedule",
    "confident_joint",
    "corrupt_labels",
    "cross_validated_probabilities",
    "detect",
    "estimated_transition",
    "fit",
    "human_labels",
    "hyperparameters",
    "in_fastest_layout",
    "load_dataset",
    "loss_options",
    "make_dataset",
    "mixup",
    "model_options",
    "noise_options",
    "predict",
    "read_human_labels",
    "schedule_options",
]

warn_of_hidden_packages()
