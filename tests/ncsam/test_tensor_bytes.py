"""Bytes of tensors are their numbers, whatever the dtype and the layout in memory."""

import numpy as np
import torch

from ncsam.tensor_bytes import tensor_bytes


def test_bytes_are_the_numbers_in_order():
    numbers = torch.arange(6.0).view(2, 3)
    assert bytes(tensor_bytes(numbers.T)) == numbers.T.numpy().tobytes()
    assert len(tensor_bytes(torch.tensor(1.0, dtype=torch.bfloat16))) == 2


def test_a_conjugate_has_the_bytes_of_its_own_numbers():
    numbers = torch.tensor([1 + 2j, 3 - 4j])
    assert bytes(tensor_bytes(numbers)) == numbers.numpy().tobytes()
    assert bytes(tensor_bytes(numbers.conj())) == np.conj(numbers.numpy()).tobytes()
    assert bytes(tensor_bytes(numbers.conj().imag)) == np.array([-2, 4], dtype=np.float32).tobytes()
