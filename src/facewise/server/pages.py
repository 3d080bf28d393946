"""Where the page's files lie, which model for a browser is among them, and who takes gzip."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

from starlette.datastructures import Headers

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


def takes_gzip(asked: Headers) -> bool:
    """Whether a request's Accept-Encoding names gzip, and not only to decline it."""
    return any(
        coding.strip().lower() == "gzip" and not re.fullmatch(r"\s*q=0(\.0*)?\s*", weight)
        for coding, _, weight in (
            part.partition(";") for part in asked.get("accept-encoding", "").split(",")
        )
    )
