"""Deep copies of modules that hold weights of their own, also where a class copies itself in another way."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


def deep_copy(field: str, module: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """A deep copy, which shares no part, weight or buffer with the module, and has their values.

    A class may define `__deepcopy__` so that copies share a large part, or are made anew. Such a part is copied by what
    `pickle` would store of it.

    Args:
        field: the name of the module, for the error.
        module: any.
        memo: copies by the `id` of what they are copies of, as for `copy.deepcopy`.

    Raises:
        TypeError: such a copy shares weights with the module too, or has others.
    """
    known = dict(memo or {})
    made: nn.Module = copy.deepcopy(module, memo)
    if _difference(module, made) is None:
        return made
    del made
    own = [part for part in module.modules() if _copies_itself(part)]
    classes = ", ".join(sorted({type(part).__name__ for part in own})) or type(module).__name__
    remedy = f"let {classes} copy all it holds in __deepcopy__, or leave __deepcopy__ out"
    try:
        made = _copied_by_state(module, own, known)
    except Exception as error:  # a class may fail to be copied in any way
        raise TypeError(
            f"{field}: a part shares itself with its copies, and cannot be copied: {error}; {remedy}"
        ) from error
    if (name := _difference(module, made)) is not None:
        raise TypeError(
            f"{field}: a copy by copy.deepcopy shares {name or 'the module'!r} with it, or gives it other values, so "
            f"that what is done to the copy would be done to it; {remedy}"
        )
    return made


def _copied_by_state(module: nn.Module, own: list[nn.Module], known: dict[int, Any]) -> nn.Module:
    """A copy in which the parts that copy themselves are made of what `pickle` would store of them."""
    states = []
    for part in own:
        reduced: Any = part.__reduce_ex__(4)
        make, arguments, state = (*reduced, None)[:3]
        known[id(part)] = make(*arguments)
        states.append((part, state))
    for part, state in states:
        if state is not None:
            known[id(part)].__setstate__(copy.deepcopy(state, known))
    made: nn.Module = copy.deepcopy(module, known)
    return made


def _copies_itself(part: nn.Module) -> bool:
    """Whether the class of a part says how it is copied. Torch's own do so for scripted and parametrized modules."""
    by_class = getattr(part, "__deepcopy__", None)
    return by_class is not None and not str(getattr(by_class, "__module__", "")).startswith("torch.")


def _difference(module: nn.Module, made: nn.Module) -> str | None:
    """The first part, weight or buffer that a copy shares, lacks, unties or has otherwise; None if it is a copy."""
    parts = {id(part) for part in made.modules()}
    for name, part in module.named_modules():
        if id(part) in parts:
            return name
    copies = dict(_tensors(made))
    first: dict[int, str] = {}
    for name, tensor in _tensors(module):
        if name not in copies or copies[name] is tensor or not _is_copy(copies[name], tensor):
            return name
        if copies[name] is not copies[first.setdefault(id(tensor), name)]:
            return name
    return None


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _is_copy(made: Tensor, tensor: Tensor) -> bool:
    """Whether a tensor has the values of another in memory of its own; True where torch does not say it."""
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.layout != torch.strided:
        return True
    if tensor.is_meta or tensor.is_quantized or tensor.numel() == 0:
        return True
    if (made.shape, made.dtype, made.device) != (tensor.shape, tensor.dtype, tensor.device):
        return False
    return made.data_ptr() != tensor.data_ptr() and torch.equal(_bytes(made), _bytes(tensor))


def _bytes(tensor: Tensor) -> Tensor:
    # NaN is no NaN, and torch compares no float8
    return tensor.detach().resolve_conj().resolve_neg().reshape(-1).view(torch.uint8)
