"""Lets torchvision, which timm imports, be imported beside a torch without CUDA, before any test module is."""

from tests.clients.without_cuda import LIBRARY

__all__ = ["LIBRARY"]
