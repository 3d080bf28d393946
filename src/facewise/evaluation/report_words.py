"""Sentences from a results file, shared by the report and the model card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from facewise.evaluation import report_tables as tables
from facewise.evaluation.degrade import NOT_FACES
from facewise.labels import ATTRIBUTES
from facewise.models import list_models
from facewise.reporting.figures import SHARE, YEARS, cell, number

NEARLY_ALL: Final = 0.9
"""Share abstained from, of those found, from which facewise is said to abstain from nearly all."""

SPLITS: Final = (
    "The splits are facewise's own. Test holds no near-duplicate of a training picture that "
    "`facewise dedupe` finds, but other photos of the same people may be in both. FairFace here is "
    "a part of its training set, not its official validation set."
)
INTERVAL_CHOICES: Final = (
    "Two choices about age intervals, the bands of the true age and the margin, were made on "
    "calibration and val, but after misses on test were known. So their coverage here is not "
    "independent of test."
)
GATE_CHOICES: Final = (
    "Two choices about gates, the measure of sharpness and how far gates stay from their limit, "
    "were made on val, but after misses on test were known. So abstention here is not independent "
    "of test."
)


def known_of_test(results: Mapping[str, Any]) -> dict[str, str]:
    """What is not independent of test, by part: "splits", "intervals" and "gates".

    Said of shipped models on their own test faces alone, by facewise's own lists; of others, only
    their makers know.
    """
    if "lists" in results["data"]:
        return {}
    ours = {spec.sha256 for spec in list_models()}
    sets = set(results["overall"])
    if results["model"]["sha256"] not in ours or (results["split"], sets) != (
        "test",
        {"utkface", "fairface"},
    ):
        return {}
    fitted = results["calibration"]
    return {
        "splits": SPLITS,
        **({"intervals": INTERVAL_CHOICES} if fitted.get("age_intervals") else {}),
        **({"gates": GATE_CHOICES} if fitted.get("gates") else {}),
    }


def gender_by_age(results: Mapping[str, Any]) -> str:
    """The ages at which gender is right less often than over all, even at the interval's end."""
    said = []
    for dataset, row in results["overall"].items():
        if not (everyone := row.get("gender_accuracy")):
            continue
        ages = results["groups"][dataset].get("age", {})
        low = [
            f"{number(SHARE, figure['value'])} at {age.removeprefix('group ')}"
            for age in sorted(ages, key=tables.natural)
            if (figure := ages[age].get("gender_accuracy"))
            and figure["high"] is not None
            and figure["high"] < everyone["value"]
        ]
        if low:
            overall = number(SHARE, everyone["value"])
            said.append(f"in {dataset}, {', '.join(low)}, and {overall} over all ages")
    return f"right {'; '.join(said)}" if said else "no age stands out in the tables"


def called_instead_of_others(results: Mapping[str, Any]) -> str:
    """What faces labelled "Others" are called, the most frequent first."""
    said = []
    for dataset, matrices in results["confusions"].items():
        if not (matrix := matrices.get("ethnicity")):
            continue
        counts = matrix["n"][matrix["labels"].index("Others")]
        wrong = sorted(
            ((n, name) for name, n in zip(matrix["answers"], counts, strict=True) if n),
            key=lambda pair: -pair[0],
        )
        called = ", ".join(f"{n} {name}" for n, name in wrong if name != "Others")
        if called:
            said.append(f"of {dataset}'s {sum(counts)}, it calls {called}")
    return "; ".join(said) or "hardly any test face has this label"


def degraded(results: Mapping[str, Any]) -> str:
    """A list below a card's item: which degraded faces facewise abstains from, and which answers
    that remain are not shown to stay within twice the clean error.
    """
    nearly, fewer = [], []
    for name, row in results["abstention"].items():
        if name in ("clean", *NOT_FACES) or not row["found"]:
            continue
        shares = [row[attribute]["abstained"] for attribute in ATTRIBUTES]
        least, most = f"{min(shares):.0%}", f"{max(shares):.0%}"
        if min(shares) >= NEARLY_ALL:
            nearly.append(name)
        else:
            fewer.append(f"{name} {least if least == most else f'{least} to {most}'}")
    if not nearly and not fewer:
        return "  - not measured (`--degraded`)"
    lines = {
        f"it abstains from {NEARLY_ALL:.0%} or more": nearly,
        "it abstains from fewer (from the least to the most of age, gender and ethnicity)": fewer,
        **tables.ratios_in_short(results),
    }
    return "\n".join(f"  - {line}: {', '.join(names) or 'none'}" for line, names in lines.items())


FILLED: Final[dict[str, Callable[[Mapping[str, Any]], str]]] = {
    "gender_by_age": gender_by_age,
    "called_instead_of_others": called_instead_of_others,
    "degraded": degraded,
}
"""Blanks of a card's hand-written part, such as ``{{degraded}}``, to what fills them."""


def noise_words(results: Mapping[str, Any], dedupe: Mapping[str, Any]) -> str:
    """What near-duplicates say about the labels, compared with the model's own error: a sentence
    and a list of attributes.
    """
    noise = dedupe["label_noise"]
    normal, laplace = (noise["age"][f"mae_floor_{kind}_years"] for kind in ("normal", "laplace"))
    age = (
        f"Age: UTKFace holds {noise['age']['n_groups']} photos more than once. Two ages of one "
        f"photo disagree in {noise['age']['share_that_disagrees']['value']:.0%} of cases, and "
        f"differ by {noise['age']['mean_difference_years']['value']:.1f} years on average, "
        "including those that agree. If labels err independently, one is off by "
        f"{cell(YEARS, normal)} years on average if errors are normal, by "
        f"{number(YEARS, laplace['value'])} if they follow Laplace's distribution"
    )
    if weighed := _at_the_ages_of(results, noise["age"].get("by_age", {})):
        age += f"; at the ages of the test faces, by {number(YEARS, weighed)} if normal"
    age += (
        ". A model that knew every apparent age would err by about as much: an estimate, not a "
        "floor."
    )
    mae = results["overall"].get("utkface", {}).get("age_mae_years")
    if mae:
        age += f" This model errs by {cell(YEARS, mae)}."
    classes = [
        _class_noise(results, name, noise[name])
        for name in ("gender", "ethnicity")
        if noise.get(name, {}).get("n_groups")
    ]
    beginning = "Photos that the data sets hold more than once show how far labels can be trusted:"
    return "\n".join([beginning, "", *(f"- {text}" for text in (age, *classes))])


def _class_noise(results: Mapping[str, Any], name: str, noise: Mapping[str, Any]) -> str:
    """How often two labels of one photo disagree on a class, and the model with the labels."""
    text = (
        f"{name.capitalize()}: two labels of one photo disagree in "
        f"{noise['pairs_disagree']['value']:.1%} of cases ({noise['n_groups']} photos that "
        "occur more than once in all data sets together)"
    )
    if error := noise.get("error_if_independent"):
        text += f"; if errors are independent, at least {cell(SHARE, error)} of labels are wrong"
    figures = {d: row.get(f"{name}_accuracy") for d, row in results["overall"].items()}
    departs = [f"{1 - f['value']:.1%} of {d}'s" for d, f in figures.items() if f]
    disagrees = f" The model disagrees with {' and '.join(departs)} labels." if departs else ""
    return f"{text}.{disagrees}"


def _at_the_ages_of(results: Mapping[str, Any], by_age: Mapping[str, Any]) -> float | None:
    """The normal estimate of the label error, weighed by the scored faces' ages; None if a band
    lacks it.
    """
    faces = {band: tables.utkface_ages(results, band) for band in by_age}
    if not faces or not all(faces.values()):
        return None
    n = {band: sum(f["n"] for f in cells) for band, cells in faces.items()}
    years = sum(n[band] * row["mae_floor_normal_years"]["value"] for band, row in by_age.items())
    return float(years / sum(n.values()))


def below_the_estimate(results: Mapping[str, Any], dedupe: Mapping[str, Any]) -> str:
    """A sentence that names the ages at which the model errs less than labels are said to."""
    bands = [
        band
        for band, row in dedupe["label_noise"]["age"].get("by_age", {}).items()
        if (mae := tables.mae_at(results, band)) is not None
        and mae < row["mae_floor_normal_years"]["value"]
    ]
    if not bands:
        return ""
    return (
        f"At {', '.join(bands)} the model errs less than that. Either label errors are not normal "
        "there (a few are far off), or the estimate is too high by chance."
    )
