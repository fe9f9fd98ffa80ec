"""Compiled kernels that training on a CPU uses where `codistill kernels` has built them.

Without them, and wherever they do not fit, PyTorch's own operations compute the same.
"""

from codistill.kernels.fused import as_now, batch_norm_relu, using_kernels

__all__ = ["as_now", "batch_norm_relu", "using_kernels"]
