"""The fused attention against the float64 reference, at sizes that fill no tile."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from mosaic_core.attention import reference
from mosaic_core.contract.errors import ModelError


@dataclass(frozen=True)
class Case:
    members: int
    tokens: int
    heads: int
    kv_heads: int
    head_dim: int
    local: int
    sparse: int
    count: int


CASES = {
    "full tiles": Case(1, 128, 4, 1, 16, 64, 32, 2),
    "odd everything": Case(2, 72, 6, 3, 12, 24, 12, 2),
    "tiny heads and blocks": Case(2, 48, 8, 2, 4, 12, 6, 3),
    "one token in a block": Case(1, 12, 2, 2, 8, 4, 1, 4),
    "local run not a multiple of the block": Case(1, 96, 4, 2, 16, 16, 24, 2),
    "every block selected": Case(1, 64, 4, 4, 8, 64, 16, 4),
}
TOLERANCE = {torch.float32: 2e-6, torch.float16: 1.5e-3}


def inputs(case: Case, device: torch.device, dtype: torch.dtype, seed: int = 0) -> list[Tensor]:
    """q, k, v and gate logits, views into wider memory full of NaN."""
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for heads, size in (
        (case.heads, case.head_dim),
        (case.kv_heads, case.head_dim),
        (case.kv_heads, case.head_dim),
        (case.heads, 3),
    ):
        wide = torch.full((case.members, case.tokens, heads * size + 5), float("nan"))
        values = torch.randn(case.members, case.tokens, heads * size, generator=generator)
        wide[..., : heads * size] = values
        drawn.append(wide.to(device, dtype)[..., : heads * size].unflatten(-1, (heads, size)))
    return drawn


def relative(result: Tensor, expected: Tensor) -> float:
    error = result.double().cpu() - expected.double().cpu()
    return float(error.norm() / expected.double().norm())


def compare(case: Case, device: torch.device, dtype: torch.dtype, **options: object) -> float:
    from mosaic_core.attention.kernels import entry

    tensors = inputs(case, device, dtype)
    blocks = {
        "local_block": case.local,
        "sparse_block": case.sparse,
        "selected_blocks": case.count,
    }
    result = entry.block_sparse_attention(*tensors, **blocks, **options)
    exact = [tensor.double().cpu() for tensor in tensors]
    listed = {name: value.cpu() for name, value in options.items()}
    expected = reference.block_sparse_attention(*exact, **blocks, **listed)
    return relative(result, expected)


@pytest.mark.parametrize("name", CASES)
def test_equals_the_float64_reference(name: str, device: torch.device) -> None:
    assert compare(CASES[name], device, torch.float32) < TOLERANCE[torch.float32]


def test_float16_loses_rounding_only(device: torch.device) -> None:
    case = CASES["odd everything"]
    every = torch.arange(case.tokens // case.sparse, device=device)
    shape = (case.members, case.kv_heads, len(every), len(every))
    selection = every.expand(shape).contiguous()
    error = compare(case, device, torch.float16, selection=selection)
    assert error < TOLERANCE[torch.float16]


def test_a_block_listed_twice_counts_twice(device: torch.device) -> None:
    case = CASES["odd everything"]
    blocks = case.tokens // case.sparse
    selection = torch.randint(0, blocks, (case.members, case.kv_heads, blocks, 5), device=device)
    selection[..., 1] = selection[..., 0]
    assert compare(case, device, torch.float32, selection=selection) < TOLERANCE[torch.float32]


def test_an_index_out_of_range_is_refused(device: torch.device) -> None:
    case = CASES["full tiles"]
    for bad in (-1, case.tokens // case.sparse):
        selection = torch.zeros(1, 1, 4, 2, dtype=torch.int64, device=device)
        selection[0, 0, 1, 1] = bad
        with pytest.raises(ModelError, match=f"indices .*{bad}"):
            compare(case, device, torch.float32, selection=selection)


def test_unsupported_types_and_strides_are_refused(device: torch.device) -> None:
    from mosaic_core.attention.kernels import entry

    q, k, v, gates = inputs(CASES["full tiles"], device, torch.float32)
    blocks = {"local_block": 64, "sparse_block": 32, "selected_blocks": 2}
    with pytest.raises(ModelError, match="float64"):
        entry.block_sparse_attention(*(x.double() for x in (q, k, v, gates)), **blocks)
    strided = q.transpose(2, 3).contiguous().transpose(2, 3)
    with pytest.raises(ModelError, match=r"last axis of q is not contiguous"):
        entry.block_sparse_attention(strided, k, v, gates, **blocks)


def test_only_suspect_tiles_are_done_again(device: torch.device) -> None:
    from mosaic_core.attention.kernels.portable_attention import fused_attention

    members, tokens, heads, kv_heads, size, block = 2, 24, 4, 2, 8, 6
    blocks = tokens // block
    draw = torch.Generator().manual_seed(3)
    q, k, v, gates = (
        torch.randn(members, tokens, count, width, generator=draw).to(device)
        for count, width in ((heads, size), (kv_heads, size), (kv_heads, size), (heads, 3))
    )
    block_out = torch.randn(members, blocks, heads, size, generator=draw).to(device)
    selection = torch.zeros(members, kv_heads, blocks, 2, dtype=torch.int32, device=device)
    whole, some = (torch.full_like(q, float("nan")) for _ in range(2))
    lists = {"local_block": 12, "sparse_block": block}
    fused_attention(q, k, v, gates, block_out, selection, **lists, out=whole)
    marked = torch.zeros(members, kv_heads, blocks, heads // kv_heads, 16, dtype=torch.int8)
    marked[1, 0, 2, 1, 5] = 1  # member 1, block 2, query head 1
    suspects = marked.flatten(0, 3).to(device)
    fused_attention(q, k, v, gates, block_out, selection, **lists, out=some, suspects=suspects)
    rows = slice(2 * block, 3 * block)
    torch.testing.assert_close(some[1, rows, 1], whole[1, rows, 1])
    assert int(some.isfinite().sum()) == block * size
