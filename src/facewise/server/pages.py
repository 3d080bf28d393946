"""Where the page's files lie, and whether the models for a browser are among them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).parent / "page"
DEVICE: Final = PAGE / "static" / "device"
"""Written by ``make page``: the pipeline in WebAssembly and its models."""


def has_device_files() -> bool:
    """Whether the page can offer to analyse on the visitor's own device."""
    return (DEVICE / "device.json").is_file()
