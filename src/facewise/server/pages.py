"""Where the page's files lie, and whether the models for a browser are among them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).parent / "page"
DEVICE: Final = PAGE / "static" / "device"
"""Written by ``make page``: the pipeline in WebAssembly and its models."""


def device_files(folder: Path | None) -> Path | None:
    """Where the files lie with which the page analyses on the visitor's own device.

    Args:
        folder: the operator's choice; None means the package's own.

    Returns:
        The folder, or None where nothing is installed.
    """
    chosen = DEVICE if folder is None else folder
    return chosen if (chosen / "device.json").is_file() else None


def device_model(files: Path) -> str | None:
    """Which model these files hold, as ``name@version``; None where they do not say."""
    try:
        model = json.loads((files / "device.json").read_text(encoding="utf-8"))["model"]
        return f"{model['name']}@{model['version']}"
    except (KeyError, TypeError, ValueError):
        return None
