"""Attention with the local and compressed branches by a library."""

from __future__ import annotations

import logging
from importlib.util import find_spec

import pytest
import torch

from mosaic_core.attention import api
from mosaic_core.contract.errors import ModelError

BLOCKS = {"local_block": 12, "sparse_block": 6, "selected_blocks": 2}


def tensors() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 36, 4, 8), (2, 36, 2, 8), (2, 36, 2, 8), (2, 36, 4, 3)]
    return [torch.randn(*shape, generator=generator) for shape in shapes]


def test_sdpa_equals_the_reference() -> None:
    expected = api.block_sparse_attention(*tensors(), **BLOCKS, impl="reference")
    found = api.block_sparse_attention(*tensors(), **BLOCKS, impl="sdpa")
    torch.testing.assert_close(found, expected)


def test_flash_where_it_is_not_installed_is_refused() -> None:
    assert find_spec("flash_attn") is None, "installed: compare it with the reference instead"
    with pytest.raises(ModelError, match="flash-attn is not installed"):
        api.block_sparse_attention(*tensors(), **BLOCKS, impl="flash")


def test_one_line_says_which_runs(caplog: pytest.LogCaptureFixture) -> None:
    api._announce.cache_clear()
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            api.block_sparse_attention(*tensors(), **BLOCKS)
    assert [record.getMessage() for record in caplog.records] == [
        "attention: reference (no kernels for float32 on cpu)"
    ]
