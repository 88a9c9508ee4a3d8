"""How near the perturbation of a step is to the one that the true labels would have given.

The comparison needs the true labels, so it belongs to controlled experiments. Each quantity answers one of the paper's
mechanism claims (arXiv:2601.19947): M1 after Eq. 9, M2 and M3 with Eq. 12, M4 with Eq. 17 and 18.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ncsam.memorization import share
from ncsam.methods.gradients import gradient
from ncsam.methods.method import Method
from ncsam.methods.tensor_lists import added, cosine, norm, scaled_to

ALIGNMENT_METRICS = {
    "cos_sam_clean": ("", "cosine of SAM's perturbation and the one from the batch's true labels"),
    "cos_compensated_sam_clean": ("", "cos_sam_clean in just the batches that NCSAM compensated"),
    "cos_plus_clean": ("", "the same for NCSAM's perturbation with +s g* (the paper's sign)"),
    "cos_minus_clean": ("", "the same for NCSAM's perturbation with -s g* (the opposite sign)"),
    "cos_gstar_noise": ("", "cosine of g* and the gradient of the batch's wrongly labeled samples"),
    "cos_clean_noise": ("", "cosine of the gradients of the rightly and the wrongly labeled samples"),
    "compensation_ratio": ("", "norm of s g* divided by rho"),
    "projected": ("", "share of batches in which the projection scaled the perturbation down"),
    "draw_precision": ("", "share of wrongly labeled samples among those drawn for temporary labels"),
    "temporary_label_precision": ("", "share of drawn samples whose temporary label is the true one"),
}
"""Name -> (unit, description) of what `perturbation_alignment` measures."""


def perturbation_alignment(
    method: Method,
    inputs: Tensor,
    observed: Tensor,
    clean: Tensor,
    indices: Tensor | None = None,
) -> dict[str, float]:
    """Compares the perturbations of one batch at the weights at which `method.backward` was called last.

    Call it between `method.backward` and `optimizer.step`. It costs one forward and four backward passes. They
    do not touch `.grad`, BatchNorm statistics or the method's random state (Dropout draws from the global one).

    Args:
        method: whose last step is examined; methods other than NCSAM leave the compensation's entries NaN.
        inputs: (batch, ...), the inputs of that step.
        observed: int64 (batch,), the labels of that step.
        clean: int64 (batch,), the true labels of the same samples.
        indices: int64 (batch,), the samples' positions in the training set, for losses that remember samples.

    Returns:
        The `ALIGNMENT_METRICS` by name. A metric that the batch or the method does not define is NaN.
    """
    with method.passes.unmoved():
        return _alignment(method, inputs, observed, clean, indices)


def _alignment(
    method: Method, inputs: Tensor, observed: Tensor, clean: Tensor, indices: Tensor | None
) -> dict[str, float]:
    is_wrong = observed != clean
    everywhere = torch.ones_like(is_wrong)
    # not through DistributedDataParallel, which would wait for a gradient
    outputs = method.passes.forward(method.passes.module, inputs)

    def gradient_of(targets: Tensor, part: Tensor) -> list[Tensor]:
        positions = indices[part] if indices is not None else None
        loss = method.passes.loss(outputs[part], targets[part], positions)
        return gradient(loss, method.model, retain_graph=True)

    with_true_labels = gradient_of(clean, everywhere)
    # of the whole batch at once, because only the loss knows how its parts count, such as by class weights
    of_batch = gradient_of(observed, everywhere)
    of_part = {
        part: gradient_of(observed, mask)
        for part, mask in (("clean", ~is_wrong), ("noise", is_wrong))
        if mask.any()
    }

    values = dict.fromkeys(ALIGNMENT_METRICS, float("nan"))
    values["cos_sam_clean"] = cosine(of_batch, with_true_labels)
    if len(of_part) == 2:
        values["cos_clean_noise"] = cosine(of_part["clean"], of_part["noise"])
    ascent = method.ascent
    if ascent is None or ascent.compensation is None or method.rho is None:
        return values

    rho = method.rho
    simulated = ascent.compensation
    values["cos_compensated_sam_clean"] = values["cos_sam_clean"]
    to_rho = scaled_to(of_batch, rho)
    size = abs(simulated.scale)
    # the projection changes no direction
    for name, sign in (("cos_plus_clean", 1), ("cos_minus_clean", -1)):
        shifted = added(to_rho, simulated.gradient, alpha=sign * size)
        values[name] = cosine(shifted, with_true_labels)
    if "noise" in of_part:
        values["cos_gstar_noise"] = cosine(simulated.gradient, of_part["noise"])
    drawn = simulated.drawn
    values["compensation_ratio"] = size * norm(simulated.gradient).item() / rho if rho > 0 else float("nan")
    values["projected"] = float(simulated.projected)
    values["draw_precision"] = is_wrong[drawn].double().mean().item()
    values["temporary_label_precision"] = share(
        simulated.temporary_targets == clean[drawn], torch.ones_like(drawn, dtype=torch.bool)
    )
    return values
