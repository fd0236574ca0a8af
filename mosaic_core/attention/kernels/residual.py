"""A product added to the residual stream, and the scale of the norm that follows."""

from __future__ import annotations

from torch import Tensor

from mosaic_core.attention.kernels import products
from mosaic_core.attention.kernels.devices import describe
from mosaic_core.attention.kernels.eight_bit import widened_hidden, widened_weight
from mosaic_core.attention.kernels.norms import row_scale, scale_of_sums


def add_product(
    x: Tensor,
    a: Tensor,
    weight: Tensor,
    eps: float,
    *,
    members: int,
    scales: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """x (rows, columns) += a (rows, depth) weight^T in place -> `norms.row_scale` of the new x.

    The rows are those of `members`. All have the type of x, or a and the weight are int8 with
    `scales`: (groups, rows) of a, as of `eight_bit.quantize_hidden`, and (columns,) of the weight.
    On Hopper GPUs one kernel adds, writes and sums the squares; elsewhere a library product does.
    """
    device = describe(x.device)
    if device.hopper:
        from mosaic_core.attention.kernels import hopper_residual

        if hopper_residual.fits(x, a):
            sums = hopper_residual.launch(x, a, weight, scales, processors=device.processors)
            return scale_of_sums(sums, x.shape[1], eps)
    if scales is not None:
        a, weight = (
            widened_hidden(a, scales[0], x.dtype),
            widened_weight(weight, scales[1], x.dtype),
        )
    products.add_product(x, a, weight, members)
    return row_scale(x, eps)
