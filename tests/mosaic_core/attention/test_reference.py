"""The reference against loops that follow the definition word by word, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mosaic_core.attention import reference
from mosaic_core.attention.api import block_sparse_attention
from mosaic_core.contract.errors import ModelError

SIZES = [
    # members, tokens, heads, kv heads, head_dim, local, sparse, selected
    (2, 48, 8, 2, 4, 16, 8, 3),
    (1, 36, 6, 3, 8, 12, 4, 2),
    (1, 24, 5, 5, 12, 24, 6, 4),
    (3, 12, 4, 1, 4, 4, 12, 1),
    (1, 60, 9, 3, 4, 20, 6, 10),
]


def inputs(size: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    members, tokens, heads, kv_heads, head_dim = size[:5]
    random = torch.Generator().manual_seed(sum(size))
    shapes = [(heads, head_dim), (kv_heads, head_dim), (kv_heads, head_dim), (heads, 3)]
    return [
        torch.randn(members, tokens, *shape, generator=random, dtype=torch.float64).to(dtype)
        for shape in shapes
    ]


def blocks(size: tuple[int, ...]) -> dict[str, int]:
    return dict(zip(("local_block", "sparse_block", "selected_blocks"), size[5:], strict=True))


def lists_by_definition(q: Tensor, k: Tensor, block: int, count: int) -> list[list[list[int]]]:
    """Key blocks [kv head][query block] of one member (token, head, head_dim)."""
    heads, kv_heads, blocks = q.shape[1], k.shape[1], len(q) // block
    group = heads // kv_heads
    q_means = [
        [q[b * block : (b + 1) * block, h].mean(0) for h in range(heads)] for b in range(blocks)
    ]
    k_means = [
        [k[b * block : (b + 1) * block, h].mean(0) for h in range(kv_heads)] for b in range(blocks)
    ]
    lists = []
    for index in range(kv_heads):
        rows = []
        for i in range(blocks):
            scores = [
                sum(
                    float(q_means[i][head] @ k_means[j][head // group])
                    for head in range(index, heads, kv_heads)
                )
                for j in range(blocks)
            ]
            best = sorted(range(blocks), key=lambda j, s=scores: -s[j])[:count]
            rows.append(sorted(best))
        lists.append(rows)
    return lists


def softmax_mean(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return torch.softmax(keys @ q / q.numel() ** 0.5, 0) @ values


def by_definition(
    q: Tensor, k: Tensor, v: Tensor, gates: Tensor, local: int, block: int, lists: list
) -> Tensor:
    """One member, token by token and head by head."""
    tokens, heads, _ = q.shape
    group = heads // k.shape[1]
    out = torch.empty_like(q)
    for head in range(heads):
        kv = head // group
        key, value = k[:, kv], v[:, kv]
        key_means = key.reshape(-1, block, key.shape[-1]).mean(1)
        value_means = value.reshape(-1, block, key.shape[-1]).mean(1)
        query_means = q[:, head].reshape(-1, block, key.shape[-1]).mean(1)
        for token in range(tokens):
            run, own = slice(token // local * local, (token // local + 1) * local), token // block
            chosen = torch.cat([torch.arange(b * block, (b + 1) * block) for b in lists[kv][own]])
            weight = torch.softmax(gates[token, head], 0)
            out[token, head] = (
                weight[0] * softmax_mean(q[token, head], key[run], value[run])
                + weight[1] * softmax_mean(query_means[own], key_means, value_means)
                + weight[2] * softmax_mean(q[token, head], key[chosen], value[chosen])
            )
    return out


@pytest.mark.parametrize("size", SIZES)
def test_it_is_what_the_definition_says(size: tuple[int, ...]) -> None:
    tensors = inputs(size)
    ours = block_sparse_attention(*tensors, **blocks(size), impl="reference")
    for member in range(size[0]):
        q, k, v, gates = (tensor[member] for tensor in tensors)
        lists = lists_by_definition(q, k, size[6], size[7])
        expected = by_definition(q, k, v, gates, size[5], size[6], lists)
        torch.testing.assert_close(ours[member], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", SIZES[:2])
def test_a_forced_selection_is_used_and_repeats_count_twice(size: tuple[int, ...]) -> None:
    q, k, v, gates = inputs(size)
    members, count = size[0], size[1] // size[6]
    forced = torch.randint(0, count, (members, size[3], count, 5), generator=torch.manual_seed(1))
    forced[..., 1] = forced[..., 0]
    ours = block_sparse_attention(q, k, v, gates, **blocks(size), selection=forced)
    expected = by_definition(q[0], k[0], v[0], gates[0], size[5], size[6], forced[0].tolist())
    torch.testing.assert_close(ours[0], expected, rtol=1e-12, atol=1e-12)


def test_the_published_grouping_of_scores_is_not_the_plain_one() -> None:
    """With 2 key heads the lists differ from those of query heads hG .. hG + G - 1."""
    q, k, _, _ = inputs(SIZES[0])
    q_means, k_means = (reference.block_means(x, 8) for x in (q, k))
    published = reference.select_blocks(q_means, k_means, 3)
    grouped = torch.einsum("bqhgd,bkhd->bhqk", torch.unflatten(q_means, 2, (2, 4)), k_means)
    plain = grouped.topk(3).indices.sort(-1).values
    assert not torch.equal(published, plain)


@pytest.mark.parametrize("limit", [1, 700, 2**25])
def test_memory_limit_changes_nothing(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = inputs(SIZES[0])
    expected = block_sparse_attention(*tensors, **blocks(SIZES[0]))
    monkeypatch.setattr(reference, "SCORES_AT_ONCE", limit)
    ours = block_sparse_attention(*tensors, **blocks(SIZES[0]))
    torch.testing.assert_close(ours, expected, rtol=1e-13, atol=1e-13)


def test_float32_is_close_to_float64_and_float16_keeps_its_type() -> None:
    exact = block_sparse_attention(*inputs(SIZES[0]), **blocks(SIZES[0]))
    single = block_sparse_attention(*inputs(SIZES[0], torch.float32), **blocks(SIZES[0]))
    half = block_sparse_attention(*inputs(SIZES[0], torch.float16), **blocks(SIZES[0]))
    torch.testing.assert_close(single.double(), exact, rtol=0, atol=2e-6)
    assert half.dtype == torch.float16


def test_a_nan_stays_in_its_member() -> None:
    q, k, v, gates = inputs(SIZES[0])
    clean = block_sparse_attention(q, k, v, gates, **blocks(SIZES[0]))
    v[1, 3] = torch.nan
    ours = block_sparse_attention(q, k, v, gates, **blocks(SIZES[0]))
    assert torch.equal(ours[0], clean[0])
    assert ours[1].isnan().any()


BAD = {
    "q and k|must be": {"k": torch.zeros(1, 8, 3, 4)},
    "v has shape": {"v": torch.zeros(1, 8, 2, 5)},
    "gate_logits has shape": {"gate_logits": torch.zeros(1, 8, 4, 2)},
    "k is torch.float64": {"k": torch.zeros(1, 8, 2, 4, dtype=torch.float64)},
    "local_block 3 does not divide": {"local_block": 3},
    "sparse_block 0 does not divide": {"sparse_block": 0},
    "selected_blocks is 5": {"selected_blocks": 5},
    "unknown implementation": {"impl": "fastest"},
    "selection has shape": {"selection": torch.zeros(1, 2, 3, 1, dtype=torch.int64)},
    "selection is torch.float32": {"selection": torch.zeros(1, 2, 4, 1)},
    "indices 0 to 4": {"selection": torch.tensor([0, 4]).expand(1, 2, 4, 2)},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_arguments_are_named(message: str) -> None:
    good = {
        "q": torch.zeros(1, 8, 4, 4),
        "k": torch.zeros(1, 8, 2, 4),
        "v": torch.zeros(1, 8, 2, 4),
        "gate_logits": torch.zeros(1, 8, 4, 3),
        "local_block": 4,
        "sparse_block": 2,
        "selected_blocks": 2,
    }
    block_sparse_attention(**good)
    with pytest.raises(ModelError, match=message):
        block_sparse_attention(**(good | BAD[message]))


def test_whole_numbers_are_refused() -> None:
    q = torch.zeros(1, 8, 4, 4, dtype=torch.int32)
    gates = torch.zeros(1, 8, 4, 3, dtype=torch.int32)
    with pytest.raises(ModelError, match="floating point"):
        block_sparse_attention(q, q, q, gates, local_block=4, sparse_block=2, selected_blocks=1)
