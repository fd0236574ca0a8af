"""Kernels run on the GPU where there is one, else through Triton's interpreter on the CPU.

The interpreter is chosen when a kernel module is first imported, hence here and not in a fixture.
"""

from __future__ import annotations

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
