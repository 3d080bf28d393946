"""bfloat16 is used only on processors made for it."""

from __future__ import annotations

import platform
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from facewise.training.precision import autocast, fast_bfloat16  # noqa: E402


def product_type(*, bfloat16: bool) -> Any:
    with autocast(bfloat16=bfloat16):
        return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype


def test_single_precision_stays_where_it_is_asked_for() -> None:
    assert product_type(bfloat16=False) == torch.float32


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="AVX-512 is of these processors"
)
def test_bfloat16_is_used_where_it_is_fast() -> None:
    """Elsewhere, convolutions in bfloat16 take ten times as long as in single precision."""
    fast = "avx512" in torch.backends.cpu.get_cpu_capability().lower()
    assert fast_bfloat16() == fast
    assert product_type(bfloat16=True) == (torch.bfloat16 if fast else torch.float32)


def test_single_precision_is_used_where_pytorch_was_built_without_onednn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As for some processors; its operators are missing there."""
    monkeypatch.setattr(torch._C, "_has_mkldnn", False)
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    assert product_type(bfloat16=True) == torch.float32
