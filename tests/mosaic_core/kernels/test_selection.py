"""Block means and the choice of key blocks."""

from __future__ import annotations

import pytest
import torch

from mosaic_core.attention import reference


@pytest.mark.parametrize(
    ("blocks", "heads", "kv_heads", "head_dim", "count"),
    [(24, 12, 3, 16, 5), (7, 6, 3, 12, 3), (33, 8, 2, 4, 33), (1, 2, 1, 8, 1)],
)
def test_the_same_blocks_as_the_reference(
    blocks: int, heads: int, kv_heads: int, head_dim: int, count: int, device: torch.device
) -> None:
    from mosaic_core.attention.kernels.selection import select_blocks

    generator = torch.Generator().manual_seed(1)
    q = torch.randn(2, blocks, heads, head_dim, generator=generator)
    k = torch.randn(2, blocks, kv_heads, head_dim, generator=generator)
    scores = torch.full((2, kv_heads, blocks, blocks), float("nan"), device=device)
    out = torch.full((2, kv_heads, blocks, count), -1, dtype=torch.int32, device=device)
    select_blocks(q.to(device), k.to(device), count, scores=scores, out=out)
    assert torch.equal(out.cpu().long(), reference.select_blocks(q, k, count))


def test_ties_and_nan_still_give_distinct_blocks(device: torch.device) -> None:
    from mosaic_core.attention.kernels.selection import select_blocks

    q, k = torch.zeros(1, 8, 2, 8), torch.zeros(1, 8, 1, 8)
    k[0, 3] = float("nan")
    scores = torch.empty(1, 1, 8, 8, device=device)
    out = torch.full((1, 1, 8, 4), -1, dtype=torch.int32, device=device)
    select_blocks(q.to(device), k.to(device), 4, scores=scores, out=out)
    assert out[0, 0].tolist() == [[0, 1, 2, 4]] * 8


def test_block_means(device: torch.device) -> None:
    from mosaic_core.attention.kernels.selection import block_means

    x = torch.randn(2, 36, 3, 20, generator=torch.Generator().manual_seed(2))[..., :12]
    result = block_means(x.to(device), 12)
    torch.testing.assert_close(result.cpu(), reference.block_means(x, 12))
