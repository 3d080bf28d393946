"""The precision in which networks are trained."""

from __future__ import annotations

import torch


def autocast(*, bfloat16: bool) -> torch.autocast:
    """A bfloat16 context, active if requested and if the processor supports it well.

    On others, such as those without AVX-512, PyTorch's convolutions take ten times as long in
    bfloat16 as in single precision, so they stay in single. Weights trained in either are equally
    good, but not bit-identical.
    """
    return torch.autocast("cpu", torch.bfloat16, bfloat16 and fast_bfloat16())


def fast_bfloat16() -> bool:
    """Whether convolutions are faster in bfloat16 on this processor."""
    if not torch.backends.mkldnn.is_available():
        return False  # PyTorch was built without oneDNN, which alone is fast in it
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
