"""detect(): the training samples, ranked by how suspicious their labels are."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ncsam.detection.confident_joint import check_labels, confident_joint
from ncsam.detection.criteria import (
    EARLY_SHARE,
    area_under_margin,
    early_learning_disagreement,
    early_predictions,
    forgetting_events,
    small_loss,
)
from ncsam.detection.quality import DetectionQuality, quality_of
from ncsam.detection.ranking import Ranking, ranked
from ncsam.dynamics import NO_CLASS, TrainingDynamics
from ncsam.history import History
from ncsam.label_noise import NoisyLabels
from ncsam.plain_numbers import with_plain_numbers
from ncsam.whole_file import written_whole

UNKNOWN = -1
"""The proposed label if there is no proposal."""


@dataclass(frozen=True)
class Detection:
    """Rankings of the training samples.

    Attributes:
        ids: (n,), numbers or names of the samples.
        labels: int64 (n,), the observed ones.
        proposed: int64 (n,), the label that the evidence proposes instead: the most probable class out of sample, else
            the class that was predicted most often in the early epochs; -1 without either.
        rankings: one for each criterion.
    """

    ids: NDArray[np.generic]
    labels: NDArray[np.int64]
    proposed: NDArray[np.int64]
    rankings: tuple[Ranking, ...]

    @property
    def criteria(self) -> tuple[str, ...]:
        """The names of the criteria."""
        return tuple(ranking.criterion for ranking in self.rankings)

    def __getitem__(self, criterion: str) -> Ranking:
        for ranking in self.rankings:
            if ranking.criterion == criterion:
                return ranking
        raise KeyError(f"criterion: must be one of {', '.join(self.criteria)}, got {criterion!r}")

    def __repr__(self) -> str:
        return f"Detection({len(self.ids)} samples by {', '.join(self.criteria)})"

    def quality(self, is_wrong: ArrayLike | Tensor) -> tuple[DetectionQuality, ...]:
        """How well each criterion finds the wrong labels, where the truth is known; see `quality_of`."""
        return tuple(quality_of(ranking, is_wrong) for ranking in self.rankings)

    def write_csv(self, file: str | Path, *, by: str | None = None) -> None:
        """Writes all samples as a table, the most suspicious first: id, labels, scores and ranks.

        The file is written whole or not at all.

        Args:
            file: its path.
            by: the criterion that orders the samples; the first one if not given.

        Raises:
            KeyError: an unknown criterion.
        """
        path = Path(file)
        order = (self.rankings[0] if by is None else self[by]).order
        with written_whole(path) as beside, beside.open("w", newline="", encoding="utf-8") as opened:
            table = csv.writer(opened)
            named = [f"{name} {column}" for name in self.criteria for column in ("score", "rank")]
            table.writerow(["id", "label", "proposed", *named])
            table.writerows(self._row(sample) for sample in order.tolist())

    def _row(self, sample: int) -> list[object]:
        values: list[object] = [self.ids[sample], self.labels[sample], self.proposed[sample]]
        for ranking in self.rankings:
            values += [f"{ranking.scores[sample]:.6g}", ranking.ranks[sample]]
        return values


@with_plain_numbers
def detect(
    evidence: History | TrainingDynamics | Mapping[str, ArrayLike | Tensor] | None,
    labels: Tensor | NoisyLabels,
    *,
    probabilities: Tensor | None = None,
    measures: Mapping[str, ArrayLike | Tensor] | None = None,
    ids: Sequence[object] | Tensor | None = None,
    early_share: float = EARLY_SHARE,
) -> Detection:
    """Ranks samples by how suspicious their labels are.

    The truth is never read, even if `labels` holds it. Criteria:

    - of a training (`fit` with `record_samples=True`): `"small-loss"`, `"forgetting"`, `"area-under-margin"`,
      `"early-learning"`; see `ncsam.detection.criteria`;
    - of out-of-sample probabilities: `"confident-joint"`; see `confident_joint` and `cross_validated_probabilities`;
    - of any measure (name -> scores, larger ones more suspicious), such as the curvature of each sample's loss.

    Args:
        evidence: a history or its dynamics, measures, or None.
        labels: int64 (n,), the observed ones, or `NoisyLabels`, whose observed labels are taken. In the confident
            joint, samples that have no label there have no score.
        probabilities: (n, classes), from networks that were not trained on the sample.
        measures: further measures, name -> scores (n,).
        ids: (n,), numbers or names of the samples; their positions if not given.
        early_share: share of the epochs that count as early.

    Raises:
        TypeError: evidence of another type.
        ValueError: no evidence, a history without dynamics or of a training that diverged, a name given twice, or sizes
            that do not match, or labels that are no classes.
        ImportError: `probabilities` without cleanlab.
    """
    observed = labels.observed if isinstance(labels, NoisyLabels) else labels
    check_labels(observed)
    given = observed.detach().cpu().long()
    dynamics, named = _taken_apart(evidence)
    if twice := sorted(named.keys() & (measures or {}).keys()):
        raise ValueError(f"measures: {twice[0]!r} is among the evidence too; choose another name")
    named |= measures or {}
    rankings: list[Ranking] = []
    if dynamics is not None:
        _check_count("evidence", dynamics.samples, given)
        rankings += [
            ranked("small-loss", small_loss(dynamics)),
            ranked("area-under-margin", area_under_margin(dynamics)),
            ranked("forgetting", forgetting_events(dynamics, given)),
            ranked("early-learning", early_learning_disagreement(dynamics, given, early_share=early_share)),
        ]
    if probabilities is not None:
        counted = labels.is_label(given) if isinstance(labels, NoisyLabels) else torch.ones_like(given).bool()
        rankings.append(ranked("confident-joint", _joint_scores(probabilities.cpu(), given, counted)))
    for name, scores in named.items():
        if name in [ranking.criterion for ranking in rankings]:
            raise ValueError(f"measures: {name!r} is the name of another criterion; choose another name")
        rankings.append(ranked(name, scores))
        _check_count(f"measures: {name}", len(rankings[-1].scores), given)
    if not rankings:
        raise ValueError("evidence: there is none; give a history, probabilities or measures")
    return Detection(
        ids=_ids(ids, given),
        labels=given.numpy(),
        proposed=_proposed(dynamics, probabilities, early_share, given),
        rankings=tuple(rankings),
    )


def _taken_apart(evidence: object) -> tuple[TrainingDynamics | None, dict[str, ArrayLike | Tensor]]:
    if evidence is None:
        return None, {}
    if isinstance(evidence, Mapping):
        return None, dict(evidence)
    if isinstance(evidence, History):
        if evidence.dynamics is None:
            raise ValueError(
                "evidence: the history holds no samples; train with fit(..., record_samples=True)"
            )
        if evidence.diverged:
            raise ValueError(
                "evidence: the training diverged; take a smaller learning rate, or give history.dynamics to rank by "
                "all epochs as they are"
            )
        return evidence.dynamics, {}
    if isinstance(evidence, TrainingDynamics):
        return evidence, {}
    raise TypeError(
        f"evidence: must be a History, TrainingDynamics, measures by name or None, got {type(evidence).__name__}"
    )


def _joint_scores(probabilities: Tensor, labels: Tensor, counted: Tensor) -> Tensor:
    """The scores by the confident joint, float64 (n,); NaN for samples without a label, which count in no class."""
    _check_count("probabilities", len(probabilities), labels)
    scores = torch.full((len(labels),), torch.nan, dtype=torch.float64, device="cpu")
    scores[counted] = confident_joint(probabilities[counted], labels[counted]).scores
    return scores


def _check_count(field: str, samples: int, labels: Tensor) -> None:
    if samples != len(labels):
        raise ValueError(f"{field}: is of {samples} samples, there are {len(labels)} labels")


def _ids(ids: Sequence[object] | Tensor | None, labels: Tensor) -> NDArray[np.generic]:
    if ids is None:
        return np.arange(len(labels))
    named = np.asarray(ids.cpu() if isinstance(ids, Tensor) else ids)
    if named.shape != (len(labels),):
        raise ValueError(f"ids: must be ({len(labels)},), one a sample, got {named.shape}")
    return named


def _proposed(
    dynamics: TrainingDynamics | None, probabilities: Tensor | None, early_share: float, labels: Tensor
) -> NDArray[np.int64]:
    if probabilities is not None:
        return probabilities.argmax(1).cpu().numpy()
    if dynamics is None:
        return np.full(len(labels), UNKNOWN, dtype=np.int64)
    predictions = early_predictions(dynamics, early_share)
    # as many numbers as epochs for each sample, and not as classes, of which there may be thousands
    votes = torch.stack([(predictions == of_epoch).sum(0) for of_epoch in predictions])
    votes[predictions == NO_CLASS] = 0
    most = votes.amax(0)
    first = predictions.masked_fill(votes < most, torch.iinfo(predictions.dtype).max).amin(0)
    return torch.where(most > 0, first, UNKNOWN).numpy()
