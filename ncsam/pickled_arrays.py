"""Arrays from pickles without unpickling. The operations of the pickle are read, but no function is called.

NumPy rebuilds an array from a state that the pickle chooses, and trusts this state: a crafted data type turns bytes
into pointers. So this module only reads the state. It makes an array from the bytes if the data type is that of a
number.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

MAX_OPERATIONS = 10_000_000
"""Most operations of one pickle. The training set of CIFAR-100 has 0.4 million; ten million need less than 1 GiB."""

NUMBERS = frozenset({"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"})
"""Data types that an array may have, by NumPy's names."""

MAX_DIMENSIONS = 64
"""NumPy's own bound."""

LARGEST_SIZE = 2**63

_RECONSTRUCT = frozenset({"numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"})
_FROM_BUFFER = frozenset({"numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"})
_NO_BYTES = "__builtin__.bytes"
ARRAY_NAMES = _RECONSTRUCT | _FROM_BUFFER | {"numpy.ndarray", "numpy.dtype", "_codecs.encode", _NO_BYTES}
"""The names in a pickled array: functions and classes of NumPy, and the function by which Python 3 writes bytes."""


class PickleError(ValueError):
    """A pickle that is broken, or that holds more than arrays, lists, dictionaries, numbers and strings."""


@dataclass(frozen=True)
class Name:
    """The name of a function or class in a pickle, such as `numpy.dtype`. The function is never looked up."""

    path: str


@dataclass(eq=False)
class Call:
    """A call that a pickle asks for, and the state that it sets on the result. The call is never made.

    Attributes:
        name: name of the function or class; `"persistent"` for content that lies outside of the pickle.
        arguments: the arguments in the pickle.
        state: the state that the pickle sets; None if it sets none.
    """

    name: str
    arguments: tuple[Any, ...]
    state: Any = None


_Stack = list[Any]
_MARK = object()
_VALUES = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *(
            "STRING",
            "BINSTRING",
            "SHORT_BINSTRING",
            "UNICODE",
            "SHORT_BINUNICODE",
            "BINUNICODE",
            "BINUNICODE8",
        ),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    }
)
"""Operations that push their own argument on the stack."""


def read_pickle(file: BinaryIO, names: frozenset[str] = ARRAY_NAMES) -> Any:
    """Reads one pickle of Python 2 or 3 up to its end; the strings of Python 2 are taken as latin-1.

    Args:
        file: open file, at the first byte of the pickle.
        names: the functions and classes that the pickle may name.

    Returns:
        Dictionaries, lists, tuples, numbers, strings and bytes; `Name` and `Call` stand for everything else.

    Raises:
        PickleError: the pickle is broken, names something else, or has more than `MAX_OPERATIONS` operations.
    """
    stack: _Stack = []
    memo: dict[int, Any] = {}
    try:
        for count, (opcode, given, _) in enumerate(pickletools.genops(file)):
            argument: Any = given
            if count >= MAX_OPERATIONS:
                raise PickleError(f"it has more than {MAX_OPERATIONS:,} words")
            word = opcode.name
            if word in _VALUES:
                stack.append(argument)
            elif word in ("PUT", "BINPUT", "LONG_BINPUT"):
                memo[argument] = stack[-1]
            elif word == "MEMOIZE":
                memo[len(memo)] = stack[-1]
            elif word in ("GET", "BINGET", "LONG_BINGET"):
                stack.append(memo[argument])
            elif word == "GLOBAL":
                stack.append(_allowed(argument.replace(" ", "."), names))
            elif word == "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                if type(name) is not str or type(module) is not str:
                    raise PickleError("it names something by a value that is no text")
                stack.append(_allowed(f"{module}.{name}", names))
            elif word == "STOP":
                return stack.pop()
            elif word in _OPERATIONS:
                _OPERATIONS[word](stack)
            elif word not in ("PROTO", "FRAME"):
                raise PickleError(f"it holds more than arrays ({word})")
    except PickleError:
        raise
    except Exception as error:  # a broken pickle may raise anything
        raise PickleError(f"it is broken ({error})") from error
    raise PickleError("it is broken (it has no end)")


def _allowed(path: str, names: frozenset[str]) -> Name:
    if path not in names:
        raise PickleError(f"it holds more than arrays ({path[:100]!r})")
    return Name(path)


def _to_mark(stack: _Stack) -> list[Any]:
    """Pops all values above the last mark, and the mark, from the stack, and returns the values."""
    items: list[Any] = []
    while (item := stack.pop()) is not _MARK:
        items.append(item)
    return items[::-1]


def _tuple_of(size: int) -> Callable[[_Stack], None]:
    def put(stack: _Stack) -> None:
        items = tuple(stack.pop() for _ in range(size))
        stack.append(items[::-1])

    return put


def _set_items(stack: _Stack, items: list[Any]) -> None:
    target = stack[-1]
    if type(target) is not dict:
        raise PickleError("it sets items of a value that is no dictionary")
    for key, value in zip(items[::2], items[1::2], strict=True):
        # the hash of tuples within tuples recurses as deep as the pickle nests them
        if type(key) not in (str, bytes, int):
            raise PickleError(f"it has a key that is a {type(key).__name__}")
        target[key] = value


def _dictionary(stack: _Stack) -> None:
    items = _to_mark(stack)
    stack.append({})
    _set_items(stack, items)


def _extend(stack: _Stack, items: list[Any]) -> None:
    if type(stack[-1]) is not list:
        raise PickleError("it appends to a value that is no list")
    stack[-1].extend(items)


def _reduce(stack: _Stack) -> None:
    arguments, function = stack.pop(), stack.pop()
    if type(function) is not Name or type(arguments) is not tuple:
        raise PickleError("it calls a value that is no function")
    stack.append(Call(function.path, arguments))


def _build(stack: _Stack) -> None:
    state, target = stack.pop(), stack[-1]
    if type(target) is not Call or target.state is not None:
        raise PickleError("it sets the state of a value that has none")
    target.state = state


_OPERATIONS: dict[str, Callable[[_Stack], None]] = {
    "NONE": lambda stack: stack.append(None),
    "NEWTRUE": lambda stack: stack.append(True),
    "NEWFALSE": lambda stack: stack.append(False),
    "MARK": lambda stack: stack.append(_MARK),
    "EMPTY_TUPLE": _tuple_of(0),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "TUPLE": lambda stack: stack.append(tuple(_to_mark(stack))),
    "EMPTY_LIST": lambda stack: stack.append([]),
    "LIST": lambda stack: stack.append(_to_mark(stack)),
    "APPEND": lambda stack: _extend(stack, [stack.pop()]),
    "APPENDS": lambda stack: _extend(stack, _to_mark(stack)),
    "EMPTY_DICT": lambda stack: stack.append({}),
    "DICT": _dictionary,
    "SETITEM": lambda stack: _set_items(stack, [stack.pop(), stack.pop()][::-1]),
    "SETITEMS": lambda stack: _set_items(stack, _to_mark(stack)),
    "REDUCE": _reduce,
    "BUILD": _build,
    "BINPERSID": lambda stack: stack.append(Call("persistent", (stack.pop(),))),
}


def as_array(call: Call) -> np.ndarray:
    """The array that a pickle describes, in the machine's byte order. It may be read-only.

    Raises:
        PickleError: the data type is not one of `NUMBERS`, the shape does not fit the bytes, or the pickle describes no
            array.
    """
    if call.name in _RECONSTRUCT:
        match call.arguments, call.state:
            case (Name("numpy.ndarray"), _, _), (
                1,
                tuple(shape),
                Call() as dtype,
                bool() | int() as is_fortran,
                content,
            ):
                return plain_array(_bytes(content), _plain_dtype(dtype), shape, "F" if is_fortran else "C")
    if call.name in _FROM_BUFFER:
        match call.arguments, call.state:
            case (content, Call() as dtype, tuple(shape), "C" | "F" as order), None:
                return plain_array(_bytes(content), _plain_dtype(dtype), shape, order)
    raise PickleError("it describes an array in an unknown way")


def are_sizes(numbers: tuple[Any, ...]) -> bool:
    """Whether these may be the sizes of an array, or its strides.

    The product of thousands of numbers, or of numbers of a million digits, takes hours.
    """
    return len(numbers) <= MAX_DIMENSIONS and all(
        type(number) is int and 0 <= number < LARGEST_SIZE for number in numbers
    )


def plain_array(content: bytes, dtype: np.dtype, shape: tuple[Any, ...], order: Any = "C") -> np.ndarray:
    """An array of exactly these bytes, in the machine's byte order.

    Raises:
        PickleError: the shape is no shape, or needs another number of bytes.
    """
    if not are_sizes(shape):
        raise PickleError("the shape of an array is no shape")
    if math.prod(shape) * dtype.itemsize != len(content):
        raise PickleError(f"an array has {len(content)} bytes, not those of its shape")
    try:
        array = np.frombuffer(content, dtype).reshape(shape, order=order)
    except ValueError as error:  # NumPy refuses more dimensions, or larger ones, than it can have
        raise PickleError(f"the shape of an array is no shape ({error})") from error
    return array.astype(dtype.newbyteorder("="), copy=False)


def _plain_dtype(call: Call) -> np.dtype:
    """The data type by its name and byte order, if the rest of its state says that it is a plain one."""
    match call.name, call.arguments, call.state:
        case (
            "numpy.dtype",
            (str(code), _, _),
            (3, "<" | ">" | "|" as order, None, None, None, -1, -1, 0),
        ) if code in NUMBERS:
            return np.dtype(order + code)
    raise PickleError("an array's data type is not a plain number's")


def _bytes(content: Any) -> bytes:
    match content:
        case Call("_codecs.encode", (str(text), "latin1"), None):
            return _bytes(text)
        case Call(name, (), None) if name == _NO_BYTES:
            return b""
        case str() if content.isascii() or max(content) < "\u0100":  # the bytes of Python 2
            return content.encode("latin1")
        case bytes() | bytearray():
            return bytes(content)
    raise PickleError("an array's content is not bytes")
