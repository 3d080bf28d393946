"""Locate the page's files and their on-device model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from facewise.errors import OptionError

PAGE: Final = Path(__file__).parent / "page"
DEVICE: Final = PAGE / "static" / "device"
"""Written by ``make page``: the pipeline in WebAssembly and its models."""


def device_files(folder: Path | None) -> Path | None:
    """The folder with the files for analysis on the visitor's device.

    Args:
        folder: the operator's choice, these files or a whole static page with them; None for the
            package's own.

    Returns:
        The folder, or None if the package has none.

    Raises:
        OptionError: the operator's choice has no such files.
    """
    for files in (DEVICE,) if folder is None else (folder, folder / "static/device"):
        if (files / "device.json").is_file():
            return files
    if folder is None:
        return None
    raise OptionError(
        f"device_folder (FACEWISE_DEVICE_FOLDER): {folder} has no device.json, nor has its "
        "static/device: name the output of `make page`, dist/page"
    )


def device_model(files: Path) -> str | None:
    """The model in these files, as ``name@version``; None if they do not state it."""
    try:
        model = json.loads((files / "device.json").read_text(encoding="utf-8"))["model"]
        return f"{model['name']}@{model['version']}"
    except (KeyError, TypeError, ValueError):
        return None
