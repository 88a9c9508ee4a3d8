"""Number and time of the kernels that a task starts on the GPU, which show whether their number is the cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


@dataclass(frozen=True)
class Kernels:
    """The kernels of a task on the device.

    Attributes:
        count: number of kernels and copies on the GPU; on the CPU, of operations of torch that call no other.
        seconds: sum of their times.
    """

    count: int
    seconds: float


def kernels_of(task: Callable[[], Any], device: str) -> Kernels:
    """Runs the task once under torch's profiler."""
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as recorded:
        task()
        if on_gpu:
            torch.cuda.synchronize()
    found = [
        event
        for event in recorded.events()
        if (event.device_type == torch.autograd.DeviceType.CUDA if on_gpu else _is_leaf(event))
    ]
    return Kernels(len(found), sum(event.time_range.elapsed_us() for event in found) / 1e6)


def _is_leaf(event: Any) -> bool:
    return event.name.startswith("aten::") and not any(
        child.name.startswith("aten::") for child in event.cpu_children
    )
