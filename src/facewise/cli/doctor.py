"""``facewise doctor``."""

from __future__ import annotations

import importlib
import platform
import re
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import TYPE_CHECKING, Final

import typer

from facewise._version import __version__
from facewise.cli.exits import Exit
from facewise.cli.options import Verbose

if TYPE_CHECKING:
    from pathlib import Path

CORE: Final = {
    "numpy": "numpy",
    "pillow": "PIL.Image",
    "onnxruntime": "onnxruntime",
    "opencv-python-headless": "cv2",
    "typer": "typer",
    "rich": "rich.console",
}
"""Distribution to the module that facewise imports from it."""

RIVALS: Final = (
    ("onnxruntime", "onnxruntime-gpu"),
    (
        "opencv-python-headless",
        "opencv-python",
        "opencv-contrib-python",
        "opencv-contrib-python-headless",
    ),
)
"""Groups of distributions that overwrite each other: two of a group together break both, any one of
them suffices."""

REINSTALL: Final = "pip install --force-reinstall"


def installed(name: str) -> str | None:
    """Version of a distribution; None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def extras() -> dict[str, list[str]]:
    """Every extra and the distributions that it needs, from facewise's metadata."""
    try:
        requirements = metadata.requires("facewise") or []
    except metadata.PackageNotFoundError:  # running from source
        requirements = []
    found: dict[str, list[str]] = {}
    for requirement in requirements:
        if match := re.match(r"([\w.-]+).*;.*\bextra == ['\"]([\w-]+)['\"]", requirement):
            name, extra = match.groups()
            found.setdefault(extra, []).append(name)
    return found


def find_problems() -> list[str]:
    """Problems of this installation, with remedies; a failing check does not stop the others."""
    found: list[str] = []
    for check in (check_packages, check_codecs, check_detector, check_models):
        try:
            found += check()
        except Exception as error:  # any exception of a broken installation is a finding
            found.append(f"{check.__name__.replace('_', ' ')}: {type(error).__name__}: {error}")
    return found


def check_packages() -> Iterator[str]:
    """Check that every core package is installed once and can be imported."""
    for name, module in CORE.items():
        rivals = next((row for row in RIVALS if name in row), (name,))
        here = [rival for rival in rivals if installed(rival)]
        if not here:
            yield f"{name} is missing: pip install {name}"
            continue
        if len(here) > 1:
            yield (
                f"{' and '.join(here)} are both installed and overwrite each other: pip uninstall "
                f"{' '.join(here)}, then install one"
            )
        try:
            _import(module)
        except Exception as error:  # an ImportError, or anything a half-written module raises
            yield f"{here[0]} does not import ({error}): {REINSTALL} {here[0]}"


def _import(module: str) -> None:
    if module == "onnxruntime":
        from facewise.models import import_onnxruntime

        import_onnxruntime()
    else:
        importlib.import_module(module)


def check_codecs() -> Iterator[str]:
    """Check that Pillow supports every format that facewise reads without extras."""
    from facewise.formats import CODECS, readable

    missing = sorted(CODECS.keys() - set(readable()))
    if missing:
        yield f"Pillow was built without {', '.join(missing)}: {REINSTALL} pillow"


def check_detector() -> Iterator[str]:
    """Check that the detector's three networks match their spec and can be opened."""
    from facewise.errors import ModelError
    from facewise.mtcnn import detector_weights, read_detector_spec

    try:
        networks = detector_weights(read_detector_spec())
    except ModelError as error:
        yield str(error)
        return
    for weights, sha256 in networks.values():
        yield from _check_weights(weights, sha256)


def check_models() -> Iterator[str]:
    """Check every attribute model's spec, calibration and weights, and that the default exists."""
    from facewise.calibration import Calibration
    from facewise.errors import ModelError
    from facewise.models import DEFAULT_MODEL, read_spec, spec_paths

    names = []
    for path in spec_paths():
        try:
            spec = read_spec(path)
        except ModelError as error:
            yield str(error)
            continue
        names.append(spec.name)
        try:
            Calibration.from_dict(spec.calibration)
        except ModelError as error:
            yield f"{path}: {error}"
        else:
            yield from _check_weights(spec.weights_path, spec.sha256)
    if DEFAULT_MODEL not in names:
        yield f"the default model, {DEFAULT_MODEL}, is missing: reinstall facewise"


def _check_weights(path: Path, sha256: str) -> Iterator[str]:
    from facewise.errors import ModelError
    from facewise.models import open_session

    try:
        open_session(path, sha256, threads=1)
    except ModelError as error:
        yield str(error)
    except ImportError:
        return  # ONNX Runtime; check_packages reports it


def _say(name: str, value: Callable[[], str]) -> None:
    try:
        text = value()
    except Exception as error:
        text = f"unknown ({type(error).__name__}: {error})"
    typer.echo(f"  {name:<24} {text}")


def _providers() -> str:
    from facewise.models import import_onnxruntime

    return ", ".join(import_onnxruntime().get_available_providers())


def _say_models() -> None:
    from facewise.errors import ModelError
    from facewise.models import DETECTOR_SPEC, read_spec, spec_paths
    from facewise.mtcnn import detector_weights, read_detector_spec

    for path in (*spec_paths(), DETECTOR_SPEC):
        try:
            if path == DETECTOR_SPEC:
                detector = read_detector_spec()
                version = detector["version"]
                size = sum(file.stat().st_size for file, _ in detector_weights(detector).values())
            else:
                spec = read_spec(path)
                version, size = spec.version, spec.size_bytes
            text = f"{version}, {size / 1e6:.1f} MB"
        except (OSError, KeyError, ModelError):
            text = "damaged"
        typer.echo(f"  model {path.stem:<18} {text}")


def doctor(verbose: Verbose = 0) -> None:
    """Print versions, providers, extras and models.

    Exits with 1 if anything that predict needs is missing or damaged; missing extras do not count.
    """
    typer.echo(f"facewise {__version__}, Python {platform.python_version()}, {platform.platform()}")
    for name in CORE:
        rivals = next((row for row in RIVALS if name in row), (name,))
        here = [f"{rival} {installed(rival)}" for rival in rivals if installed(rival)]
        typer.echo(f"  {name:<24} {', '.join(here).removeprefix(f'{name} ') or 'missing'}")
    _say("providers", _providers)
    for extra, names in extras().items():
        missing = [name for name in names if not installed(name)]
        state = "installed" if not missing else f"pip install 'facewise[{extra}]'"
        typer.echo(f"  extra {extra:<18} {state}")
    _say_models()
    wrong = find_problems()
    for problem in wrong:
        typer.echo(f"problem: {problem}", err=True)
    if not wrong:
        typer.echo("no problems found")
    sys.exit(Exit.FAILED if wrong else Exit.OK)
