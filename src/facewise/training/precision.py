"""Which precision networks learn in."""

from __future__ import annotations

import torch


def autocast(*, bfloat16: bool) -> torch.autocast:
    """A context of bfloat16, where it is wanted and the processor is made for it.

    Elsewhere, as on a processor without AVX-512, PyTorch's convolutions in bfloat16 take ten times
    as long as those in single precision, so they stay in that. Weights learnt in one are as good as
    those learnt in the other, but not equal to the bit.
    """
    return torch.autocast("cpu", torch.bfloat16, bfloat16 and fast_bfloat16())


def fast_bfloat16() -> bool:
    """Whether this processor's convolutions gain by bfloat16."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
