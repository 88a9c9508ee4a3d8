"""The edge of stability: the largest eigenvalue of the Hessian with which a training at a constant rate is stable.

Near a minimum, the loss along an eigenvector of the Hessian is a parabola. Gradient descent with momentum stays near
the minimum only if the eigenvalue is below an edge that the learning rate sets (Cohen et al. 2021, arXiv:2103.00065).
SAM's edge is lower, because its gradient is taken at perturbed weights (Long and Bartlett 2024, arXiv:2309.12488).
Their edge is for gradient descent on the whole data. Momentum is added here as for gradient descent, and the norm of
the gradient is that of a batch, because SAM perturbs for each batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from analysis.store.run_file import StoredRun

EDGES = ("stability_edge", "descent_edge")
"""The columns."""


def descent_edge(learning_rate: float, momentum: float, weight_decay: float = 0.0) -> float:
    """The edge of gradient descent with heavy-ball momentum: 2 (1 + momentum) / learning rate.

    A weight decay is a part of the curvature, so that the loss itself may have less.
    """
    return 2 * (1 + momentum) / learning_rate - weight_decay


def sam_edge(descent: float, rho: float, gradient_norm: float) -> float:
    """SAM's edge, from that of gradient descent.

    SAM's step of length `rho` along a gradient of norm g turns the eigenvalue k into k (1 + rho k / g). The edge is
    where this is the edge of gradient descent. Without a gradient there is no curvature that is stable: the edge is 0.
    """
    if gradient_norm == 0:
        return 0.0
    return 2 * descent / (1 + math.sqrt(1 + 4 * rho * descent / gradient_norm))


def edge_columns(stored: StoredRun, row: Mapping[str, float]) -> dict[str, float]:
    """The edges at the end of a run.

    `stability_edge` is the one of the run's own method, which is SGD or SAM. `descent_edge` is that of SGD. Both are
    NaN where the learning rate was not constant, where gradients were clipped, and for other optimizers than SGD.
    `stability_edge` of SAM is NaN where the gradient noise was not measured.

    Args:
        stored: the run.
        row: its columns `gradient_norm_observed` and `gradient_noise_observed`.
    """
    training = stored.config.training
    columns = dict.fromkeys(EDGES, math.nan)
    is_simple = training.optimizer == "sgd" and training.max_gradient_norm is None
    if not is_simple or training.schedule.name != "constant":
        return columns
    descent = descent_edge(training.learning_rate, training.momentum, training.weight_decay)
    columns["descent_edge"] = descent
    if stored.config.method.name == "plain":
        columns["stability_edge"] = descent
    elif stored.config.method.name == "sam":
        of_batch = row["gradient_norm_observed"] ** 2 + row["gradient_noise_observed"] / training.batch_size
        columns["stability_edge"] = sam_edge(descent, stored.hyperparameters["rho"], math.sqrt(of_batch))
    return columns
