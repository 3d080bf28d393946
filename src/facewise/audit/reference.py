"""A population to compare with: a list of ``attribute,label,share``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from facewise.datasets import read_rows
from facewise.errors import OptionError
from facewise.labels import GENDER_SYNONYMS
from facewise.reporting.confusions import LABELS

COLUMNS: Final = ("attribute", "label", "share")
_SYNONYMS: Final = {"sex": "gender", "race": "ethnicity"}
_LABEL_SYNONYMS: Final = {"gender": GENDER_SYNONYMS}
"""FairFace's races are none here: several are one class, whose share would stand there twice."""


def read_reference(path: Path) -> dict[str, dict[str, float]]:
    """Attribute to label to share; each attribute's shares sum to 1, labels left out being 0.

    The file is one that ``read_rows`` reads. Attributes and labels go by any case; gender may be
    called sex, and ethnicity race; genders have the synonyms that lists of labels have.

    Raises:
        OptionError: the file cannot be read, holds no share, or says something else.
    """
    out: dict[str, dict[str, float]] = {}
    for row in read_rows(path, COLUMNS):
        name, said = row["attribute"].strip().lower(), row["label"]
        name = _SYNONYMS.get(name, name)
        labels = {label.lower(): label for label in LABELS.get(name, ())}
        labels |= _LABEL_SYNONYMS.get(name, {})
        label = labels.get(said.strip().lower())
        if label is None:
            known = "; ".join(f"{n}: {', '.join(every)}" for n, every in LABELS.items())
            raise OptionError(f"{path}: no {said!r} of {name!r}; there are {known}")
        if label in out.setdefault(name, {}):
            raise OptionError(f"{path}: {label!r} of {name!r} is listed twice")
        try:
            # Where fields are separated by semicolons, it is because commas are in the numbers.
            out[name][label] = float(row["share"].replace(",", "."))
        except ValueError as error:
            raise OptionError(
                f"{path}: the share of {label!r} of {name!r} is not a number, but {row['share']!r}"
            ) from error
    if not out:
        raise OptionError(f"{path} holds no share: it needs one row per label below its header")
    for name, shares in out.items():
        # Not a number is less than nothing and not near 1 either.
        total = sum(shares.values())
        if not (min(shares.values()) >= 0 and abs(total - 1) <= 0.005):
            advice = ": divide them by 100" if abs(total - 100) <= 0.5 else ", or one is below 0"
            raise OptionError(f"{path}: the shares of {name} sum to {total:.3f}, not 1{advice}")
    return {name: dict.fromkeys(LABELS[name], 0.0) | shares for name, shares in out.items()}
