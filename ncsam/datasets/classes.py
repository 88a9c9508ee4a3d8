"""The number of classes of a data set, from its labels."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ncsam.data_bounds import check_classes, missing_classes


def number_of_classes(labels: Mapping[str, Tensor], said: int | None, where: str, remedy: str) -> int:
    """The number of classes; what is said, or the largest label plus one, and then each class must occur.

    A label far outside, such as 255 for "no label", is a slip: the networks would have an output for each class below
    it, and wrong labels would be drawn from them.

    Args:
        labels: name -> int64 (n,) labels of one part of the data.
        said: the number of classes as the source of the data says it; None where it says none.
        where: what an error names before the labels' names, such as the file.
        remedy: how a user says the number of classes; `{classes}` in it becomes the number.

    Raises:
        ValueError: a label lies outside the classes, or no label is of some class.
    """
    largest = {name: int(part.max()) for name, part in labels.items() if len(part)}
    name = max(largest, key=lambda each: largest[each])
    label, sample = largest[name], int(labels[name].argmax())
    check_classes(label, f"{where}: {name!r}")
    if said is not None:
        if label >= said or any(int(part.min()) < 0 for part in labels.values() if len(part)):
            raise ValueError(
                f"{where}: labels must lie in 0..{said - 1}, and {name!r} has {label} at sample {sample}; leave out "
                "samples without a label"
            )
        return said
    missing = missing_classes(labels.values(), label + 1)
    if missing:
        raise ValueError(
            f"{where}: {name!r} has the label {label} at sample {sample}, and no label is of class {missing}, which "
            f"wrong labels would be drawn from; if there are {label + 1} classes, {remedy.format(classes=label + 1)}; "
            f"if {label} marks samples without a label, leave these out; else count the classes from 0, as "
            "numpy.unique(labels, return_inverse=True)[1] does"
        )
    return label + 1
