"""The contract of 19 outputs, and the mapping of data-set labels onto it.

=======  ===========================================================================
index    meaning
=======  ===========================================================================
0-11     apparent age decade: index k is ages 10k+1 to 10k+10
12-13    apparent gender: male, female
14-18    apparent ethnicity: White, Black, Asian, Indian, Others (UTKFace's classes)
=======  ===========================================================================

The network itself predicts a distribution over the single years 1 to 120; decades, FairFace's age
groups and the expected age are sums over it, computed here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

import numpy as np

from facewise.errors import OptionError, check_list
from facewise.types import AnyIntArray, BoolArray, Float64Array, FloatArray, IndexArray

AGES: Final = np.arange(1, 121)
"""The single years, 1 to 120; index i of an age distribution is the age i + 1."""

AGE_LABELS: Final[tuple[str, ...]] = tuple(str(age) for age in AGES)
DECADE_LABELS: Final[tuple[str, ...]] = tuple(f"{10 * k + 1}-{10 * k + 10}" for k in range(12))
GENDER_LABELS: Final[tuple[str, ...]] = ("male", "female")
ETHNICITY_LABELS: Final[tuple[str, ...]] = ("White", "Black", "Asian", "Indian", "Others")
VECTOR_LABELS: Final[tuple[str, ...]] = DECADE_LABELS + GENDER_LABELS + ETHNICITY_LABELS

DECADES: Final = slice(0, 12)
GENDER: Final = slice(12, 14)
ETHNICITY: Final = slice(14, 19)

LABELS: Final[dict[str, tuple[str, ...]]] = {
    "age": DECADE_LABELS,
    "gender": GENDER_LABELS,
    "ethnicity": ETHNICITY_LABELS,
}
"""Labels by attribute, in the order of the vector."""

PARTS: Final[dict[str, slice]] = {"age": DECADES, "gender": GENDER, "ethnicity": ETHNICITY}
"""Where each attribute is in the vector."""

ATTRIBUTES: Final[tuple[str, ...]] = tuple(LABELS)

CLASSES: Final = {name: labels for name, labels in LABELS.items() if name != "age"}
"""Labels of the attributes that are classes."""

GENDER_SYNONYMS: Final[dict[str, str]] = {
    "m": "male",
    "man": "male",
    "boy": "male",
    "f": "female",
    "woman": "female",
    "girl": "female",
}
"""Other spellings of the contract's genders in lists of labels."""

FAIRFACE_AGE_GROUPS: Final[dict[str, tuple[int, int]]] = {
    "0-2": (1, 2),
    "3-9": (3, 9),
    "10-19": (10, 19),
    "20-29": (20, 29),
    "30-39": (30, 39),
    "40-49": (40, 49),
    "50-59": (50, 59),
    "60-69": (60, 69),
    "70+": (70, 120),
}
"""FairFace's nine age groups as inclusive years. Newborns count as one year old, as in UTKFace: the
contract has no age 0."""

FAIRFACE_RACES: Final[dict[str, str]] = {
    "White": "White",
    "Black": "Black",
    "East Asian": "Asian",
    "Southeast Asian": "Asian",
    "Indian": "Indian",
    "Latino_Hispanic": "Others",
    "Middle Eastern": "Others",
}
"""FairFace's seven races mapped to the five classes of the contract."""

ETHNICITY_SYNONYMS: Final[dict[str, str]] = FAIRFACE_RACES | {
    "Caucasian": "White",
    "African American": "Black",
    "Other": "Others",
}
"""Other spellings of the contract's ethnicity classes in lists of labels."""


def check_attributes(attributes: Collection[str]) -> tuple[str, ...]:
    """Check attribute names and return them in the contract's order.

    Raises:
        OptionError: there are none, or one is unknown.
    """
    wanted = check_list("attributes", attributes)
    unknown = sorted({str(name) for name in wanted} - set(ATTRIBUTES))
    if unknown or not wanted:
        raise OptionError(
            f"attributes must be some of {', '.join(ATTRIBUTES)}"
            + (f", not {', '.join(unknown)}" if unknown else "")
        )
    return tuple(name for name in ATTRIBUTES if name in wanted)


def without_sensitive(attributes: Iterable[str]) -> tuple[str, ...]:
    """The attributes that nobody has to ask for: all but ethnicity, which is off in videos and
    beyond one's own machine unless it is named, and in live views in any case.
    """
    return tuple(name for name in attributes if name != "ethnicity")


def by_attribute(ages: FloatArray, vectors: FloatArray) -> dict[str, FloatArray]:
    """The network's answers ``(N, 120)`` and ``(N, 19)`` by attribute; age has its single years."""
    return {"age": ages, "gender": vectors[:, GENDER], "ethnicity": vectors[:, ETHNICITY]}


def ages_to_decades(ages: FloatArray) -> FloatArray:
    """Sum single-year probabilities ``(..., 120)`` into decades ``(..., 12)``."""
    return ages.reshape(*ages.shape[:-1], 12, 10).sum(axis=-1, dtype=np.float32)


def years_within(ranges: AnyIntArray) -> BoolArray:
    """Mask of the years in each range: first and last year ``(N, 2)`` to ``(N, 120)``."""
    return (ranges[:, :1] <= AGES) & (ranges[:, 1:] >= AGES)


def range_groups(ranges: AnyIntArray) -> IndexArray:
    """Index of the FairFace group that contains each range: first and last year ``(N, 2)`` to
    ``(N,)``.

    -1 for a range that spans several groups, such as 18-30, and for 0, 0, which is unknown.
    """
    starts = [first for first, _ in FAIRFACE_AGE_GROUPS.values()]
    first, last = (np.searchsorted(starts, ranges, side="right") - 1).T
    return np.where(first == last, first, -1)


def ages_to_fairface_groups(ages: FloatArray) -> FloatArray:
    """Sum single-year probabilities ``(..., 120)`` into FairFace's nine groups ``(..., 9)``."""
    groups = [
        ages[..., first - 1 : last].sum(axis=-1) for first, last in FAIRFACE_AGE_GROUPS.values()
    ]
    return np.stack(groups, axis=-1).astype(np.float32)


def expected_age(ages: FloatArray) -> Float64Array:
    """Mean of a distribution over single years: ``(..., 120)`` to ``(...,)``, in years."""
    return ages.astype(np.float64) @ AGES
