"""A product added to the residual stream, and the scale of the norm that follows."""

from __future__ import annotations

from torch import Tensor

from mosaic_core.attention.kernels.devices import describe
from mosaic_core.attention.kernels.norms import row_scale, scale_of_sums


def add_product(x: Tensor, a: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x (rows, columns) += a (rows, depth) weight^T in place -> `norms.row_scale` of the new x.

    On Hopper GPUs one kernel adds, writes and sums the squares; elsewhere a library product does.
    """
    device = describe(x.device)
    if device.hopper:
        from mosaic_core.attention.kernels import hopper_residual

        if hopper_residual.fits(x, a):
            sums = hopper_residual.launch(x, a, weight, processors=device.processors)
            return scale_of_sums(sums, x.shape[1], eps)
    x.addmm_(a, weight.T)
    return row_scale(x, eps)
