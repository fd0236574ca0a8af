"""Matrix products by the library, one call for each member.

A library chooses its kernel, and with it the order of its sums, by the number of rows. With the
rows of one member in every call, a member has the same bits in a batch of any size.
"""

from __future__ import annotations

import torch
from torch import Tensor


def product(x: Tensor, weight: Tensor, members: int) -> Tensor:
    """x weight^T for x (members x rows, depth) and weight (columns, depth), in their type."""
    out = x.new_empty(len(x), len(weight))
    for part, to in zip(x.chunk(members), out.chunk(members), strict=True):
        torch.mm(part, weight.T, out=to)
    return out


def wide_product(x: Tensor, weight: Tensor, members: int) -> Tensor:
    """`product` with a float32 result that was never rounded to the operands' type."""
    if not x.is_cuda or x.dtype == torch.float32:
        return product(x.float(), weight.float(), members)
    parts = x.chunk(members)
    return torch.cat([torch.mm(part, weight.T, out_dtype=torch.float32) for part in parts])


def add_product(x: Tensor, a: Tensor, weight: Tensor, members: int) -> None:
    """x (members x rows, columns) += a weight^T in place."""
    for part, added in zip(x.chunk(members), a.chunk(members), strict=True):
        part.addmm_(added, weight.T)
