"""Read a reference population: a list of ``attribute,label,share``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from facewise.data.lists import read_rows
from facewise.errors import OptionError
from facewise.labels import GENDER_SYNONYMS, LABELS

COLUMNS: Final = ("attribute", "label", "share")
_SYNONYMS: Final = {"sex": "gender", "race": "ethnicity"}
_LABEL_SYNONYMS: Final = {"gender": GENDER_SYNONYMS}
"""FairFace's races are not accepted: several map to one class, which would be listed twice."""


def read_reference(path: Path) -> dict[str, dict[str, float]]:
    """Attribute to label to share; each attribute's shares sum to 1, and omitted labels are 0.

    Shares may also be percentages, with or without a sign.

    The file is read by ``read_rows``. Attributes and labels are case-insensitive; "sex" means
    gender, "race" ethnicity, and genders have the same synonyms as in lists of labels.

    Raises:
        OptionError: the file cannot be read, holds no shares, or has invalid ones.
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
            out[name][label] = _share(row["share"])
        except ValueError as error:
            raise OptionError(
                f"{path}: the share of {label!r} of {name!r} is not a number, but {row['share']!r}"
            ) from error
    if not out:
        raise OptionError(f"{path} holds no share: it needs one row per label below its header")
    for name, shares in out.items():
        total = sum(shares.values())
        if abs(total - 100) <= 0.5:
            shares.update({label: share / 100 for label, share in shares.items()})
            total /= 100
        # Written so that NaN fails, too.
        if not (min(shares.values()) >= 0 and abs(total - 1) <= 0.005):
            raise OptionError(
                f"{path}: the shares of {name} sum to {total:.3f}, not 1 or 100 %, or one is "
                "below 0"
            )
    return {name: dict.fromkeys(LABELS[name], 0.0) | shares for name, shares in out.items()}


def _share(said: str) -> float:
    # In files separated by semicolons, numbers have decimal commas.
    number = said.strip().replace(",", ".")
    return float(number.removesuffix("%")) / (100 if number.endswith("%") else 1)
