"""``facewise doctor``."""

from __future__ import annotations

import platform
import sys
from importlib import metadata
from typing import Final

import typer

from facewise._version import __version__

CORE: Final = ("numpy", "pillow", "onnxruntime", "opencv-python-headless", "typer", "rich")
EXTRAS: Final = {
    "heif": ("pillow-heif",),
    "server": ("fastapi", "uvicorn", "python-multipart", "pydantic-settings"),
    "batch": ("pyarrow", "duckdb", "fsspec"),
    "video": ("av",),
    "ray": ("ray",),
    "train": ("torch", "onnx"),
    "evaluate": ("scikit-learn", "fairlearn", "crepes", "pandas", "matplotlib"),
}
RIVALS: Final = (
    ("onnxruntime", "onnxruntime-gpu"),
    ("opencv-python-headless", "opencv-python", "opencv-contrib-python"),
)
"""Distributions that install over each other; two of a row at once break the import of either."""


def installed(name: str) -> str | None:
    """Version of an installed distribution, None where there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def problems() -> list[str]:
    """What is wrong with this installation, each with what to do."""
    from facewise.errors import ModelError
    from facewise.models import list_models, read_weights

    found = []
    for rivals in RIVALS:
        here = [name for name in rivals if installed(name)]
        if len(here) > 1:
            found.append(
                f"{' and '.join(here)} are both installed and overwrite each other: pip uninstall "
                f"{' '.join(here)}, then install one"
            )
    found += [f"{n} is missing: pip install {n}" for n in CORE[:2] + CORE[4:] if not installed(n)]
    for rivals in RIVALS:
        if not any(installed(name) for name in rivals):
            found.append(f"{rivals[0]} is missing: pip install {rivals[0]}")
    specs = list_models()
    if not specs:
        found.append("no model is installed: reinstall facewise")
    for spec in specs:
        try:
            read_weights(spec.weights_path, spec.sha256)
        except ModelError as error:
            found.append(str(error))
    return found


def doctor() -> None:
    """Print versions, providers and models, and what is missing. Ends with 1 where something is."""
    from facewise.models import list_models

    typer.echo(f"facewise {__version__}, Python {platform.python_version()}, {platform.platform()}")
    for name in CORE:
        typer.echo(f"  {name:<24} {installed(name) or 'missing'}")
    try:
        from facewise.models import import_onnxruntime

        ort = import_onnxruntime()

        typer.echo(f"  providers                {', '.join(ort.get_available_providers())}")
    except ImportError as error:
        typer.echo(f"  providers                onnxruntime does not import: {error}")
    for extra, names in EXTRAS.items():
        missing = [name for name in names if not installed(name)]
        state = "installed" if not missing else f"pip install 'facewise[{extra}]'"
        typer.echo(f"  extra {extra:<18} {state}")
    for spec in list_models():
        typer.echo(f"  model {spec.name:<18} {spec.version}, {spec.size_bytes / 1e6:.1f} MB")
    wrong = problems()
    for problem in wrong:
        typer.echo(f"problem: {problem}", err=True)
    if not wrong:
        typer.echo("nothing is wrong")
    sys.exit(1 if wrong else 0)
