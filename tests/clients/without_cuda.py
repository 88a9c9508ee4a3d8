"""Lets torchvision, which timm imports, be imported beside a torch without CUDA."""

import torch

# of torchvision's binary, which needs CUDA's libraries; no test calls them
OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def declared():
    if torch.version.cuda is not None:
        return None
    library = torch.library.Library("torchvision", "DEF")
    for operator in OPERATORS:
        library.define(operator)
    return library


# kept: the operators live as long as their library
LIBRARY = declared()
