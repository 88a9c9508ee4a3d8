"""Pickles as an attacker writes them, by a random generator: `python -m tests.ncsam.hostile_pickles SEED COUNT`.

Run in a process of its own: a reader that believes them ends it by a signal, or by the bound on memory.
"""

import contextlib
import io
import pickle
import resource
import struct
import sys
import zipfile
from random import Random

import numpy as np
import torch

from ncsam.pickled_arrays import NUMBERS, Call, as_array, read_pickle
from ncsam.torch_file import read_torch_file

CODES = ["i8", "u1", "f4", "O8", "O", "V8", "V0", "S0", "U4", "M8", "c16", "b1", "i4,O", "8O", "", "?", "n1"]
NAMES = [
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy.dtypes", "ObjectDType"),
    ("_codecs", "encode"),
    ("builtins", "set"),
    ("collections", "OrderedDict"),
    ("torch", "LongStorage"),
    ("torch.storage", "UntypedStorage"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_tensor_v3"),
]


def name(module, attribute):
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def text(value):
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value):
    return b"\x8a\x08" + struct.pack("<q", value)


def sequence(items):
    return b"(" + b"".join(items) + b"t"


def dtype_of_objects_in_a_subarray(code="i8"):
    """A plain data type by its name; by its state a subarray of objects, with no flag that says so."""
    objects = name("numpy", "dtype") + text("O8") + b"\x89\x88\x87R"
    subarray = objects + number(1) + b"\x85\x86"
    state = sequence([number(3), text("<"), subarray, b"NN", number(8), number(8), number(0)])
    return name("numpy", "dtype") + text(code) + b"\x89\x88\x87R" + state + b"b"


def pointers_of_bytes():
    """An array of objects whose addresses are the file's bytes."""
    content = name("_codecs", "encode") + text("AAAAAAAA") + text("latin1") + b"\x86R"
    return name("numpy", "ndarray") + b")" + dtype_of_objects_in_a_subarray() + content + b"\x87R"


def crafted_dtype(random, depth=0):
    any_number = random.choice([-1, 0, 1, 3, 8, 2**31, -(2**63), random.randrange(-20, 20)])
    inner = crafted_dtype(random, depth + 1) if depth < 3 and random.random() < 0.4 else b"N"
    parts = [
        number(random.choice([3, 4, 1, any_number])),
        text(random.choice("<>|=!")),
        random.choice([b"N", inner, inner + number(any_number) + b"\x85\x86", b")"]),
        random.choice([b"N", text("a") + b"\x85", b")"]),
        random.choice([b"N", b"}" + text("a") + inner + number(any_number) + b"\x86s"]),
        number(random.choice([-1, 8, any_number])),
        number(random.choice([-1, 8, any_number])),
        number(random.choice([0, 63, 27, any_number])),
    ]
    state = sequence(parts[: random.choice([8, 8, 8, 5, 9])])
    built = name("numpy", "dtype") + text(random.choice(CODES)) + b"\x89\x88\x87R"
    return random.choice([dtype_of_objects_in_a_subarray(), built + state + b"b", built, inner])


def crafted_array(random):
    content = random.choice([b"B" + struct.pack("<I", 8) + random.randbytes(8), text("AAAAAAAA"), b"N", b"]"])
    if random.random() < 0.3:
        content = (
            name("_codecs", "encode") + text("A" * 8) + text(random.choice(["latin1", "rot13"])) + b"\x86R"
        )
    shape = sequence([number(random.choice([0, 1, 8, -1, 2**62])) for _ in range(random.randrange(3))])
    dtype, kind = crafted_dtype(random), name("numpy", "ndarray")
    reconstruct = name(*random.choice(NAMES))
    version = number(random.choice([0, 1, 2]))
    return random.choice(
        [
            reconstruct + kind + number(0) + b"\x85" + text("b") + b"\x87R"
            + sequence([version, shape, dtype, b"\x89", content]) + b"b",
            kind + shape + dtype + content + b"\x87R",
            reconstruct + sequence([content, dtype, shape, text("C")]) + b"R",
            crafted_tensor(random, shape),
        ]
    )  # fmt: skip


def crafted_tensor(random, shape):
    kept = sequence([text("storage"), name(*random.choice(NAMES)), text("0"), text("cpu"), number(8)])
    offset = number(random.choice([0, 1, 7, 2**62, -1]))
    return (
        name(*random.choice(NAMES[-2:]))
        + sequence([kept + b"Q", offset, shape, shape, b"\x89", name("collections", "OrderedDict") + b")R"])
        + b"R"
    )


def deep(random):
    """Nesting that recurses in C, memo numbers and lengths that claim memory."""
    tuples = b"}" + b"N" + b"\x85" * 200_000
    doubled = b"N" + b"2\x86" * 80
    return random.choice(
        [
            tuples + b"Ns",
            b"N" + b"\x85" * 200_000 + number(1) + b"\x93",
            b"}" + doubled + b"Ns",
            doubled + text("a") + b"\x93",
            b"Nr" + struct.pack("<I", 2**32 - 1),
            b"\x95" + struct.pack("<Q", 2**62),
            b"\x8e" + struct.pack("<Q", 2**62),
            b"\x96" + struct.pack("<Q", 2**40),
            b"\x8b" + struct.pack("<i", 2**31 - 1),
            b"]" * 200_000 + b"a" * 199_999,
        ]
    )


def crafted(random):
    """One hostile pickle."""
    body = deep(random) if random.random() < 0.02 else crafted_array(random)
    touched = random.choice([b"", name("builtins", "set")])
    if touched:
        body = touched + body + b"\x85R"
    content = b"\x80\x02}" + text(random.choice(["data", "labels"])) + body + b"s."
    if random.random() < 0.3:
        content = pickle.dumps({"data": np.arange(random.randrange(9))}, random.randrange(6))
    if random.random() < 0.3:
        broken = bytearray(content)
        for _ in range(random.randrange(1, 4)):
            broken[random.randrange(len(broken))] = random.randrange(256)
        content = bytes(broken)
    return content


def as_torch_file(content, tensor):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/data/0", tensor)
    return file


def read_all(content, random):
    """Every reader's answer: arrays of plain numbers, or a refusal."""
    try:
        found = read_pickle(io.BytesIO(content))
        values = found.values() if isinstance(found, dict) else [found]
        arrays = [as_array(value) for value in values if isinstance(value, Call)]
    except ValueError:
        arrays = []
    with contextlib.suppress(ValueError):
        file = as_torch_file(content, random.randbytes(64))
        arrays += [np.asarray(make()) for make in read_torch_file(file).values()]
    for array in arrays:
        assert array.dtype.str[1:] in NUMBERS, array.dtype
        array.copy()


def main(seed, count):
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
    torch.set_num_threads(1)
    random = Random(seed)
    for _ in range(count):
        read_all(crafted(random), random)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
