"""Which labels are wrong: rankings of the training samples, from a training or from other measures.

history = fit(..., record_samples=True)
found = detect(history, labels.observed)
found["area-under-margin"].order[:50]
"""

from ncsam.detection.confident_joint import ConfidentJoint, confident_joint
from ncsam.detection.criteria import (
    area_under_margin,
    early_learning_disagreement,
    forgetting_events,
    small_loss,
)
from ncsam.detection.cross_validation import DivergedError, cross_validated_probabilities
from ncsam.detection.detect import Detection, detect
from ncsam.detection.fingerprint import training_fingerprint
from ncsam.detection.quality import DetectionQuality, Interval, quality_of
from ncsam.detection.ranking import Ranking, ranked

__all__ = [
    "ConfidentJoint",
    "Detection",
    "DetectionQuality",
    "DivergedError",
    "Interval",
    "Ranking",
    "area_under_margin",
    "confident_joint",
    "cross_validated_probabilities",
    "detect",
    "early_learning_disagreement",
    "forgetting_events",
    "quality_of",
    "ranked",
    "small_loss",
    "training_fingerprint",
]
