"""Model cards: a hand-written part, with every number taken from a results file.

Headings follow Mitchell et al., "Model cards for model reporting" (2019). ``weights/cards/card.md``
holds what is true of every attribute model; ``cards/NAME.md`` beside a model's spec holds its own
sections "Training" and "Failures". Neither contains figures; blanks such as ``{{degraded}}`` in the
latter are filled from the results.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from facewise.errors import OptionError
from facewise.evaluation import report_tables as tables
from facewise.evaluation.degrade import INPUTS
from facewise.evaluation.report import LEFT_OUT, read_results
from facewise.evaluation.report_words import FILLED, known_of_test, noise_words
from facewise.files import write_text
from facewise.models import WEIGHTS_FOLDER, ModelSpec
from facewise.reporting.figures import NONE, cell
from facewise.reporting.report import Report, escaped, markdown_table

TEMPLATE: Final = WEIGHTS_FOLDER / "cards" / "card.md"
SINGLE: Final = ("ethnicity", "gender", "age")
SEEDS: Final = "seeds.json"
"""Beside the results: figures on val of exports that differ in the seed of their last stage."""

HEADS: Final = "ablation-head.json"
"""Beside the results: the same figures for heads on frozen features, by variant."""

FIGURES: Final = {
    "utkface_mae": "UTKFace MAE, years",
    "utkface_cs5": "CS@5",
    "utkface_gender": "gender",
    "utkface_ethnicity": "ethnicity",
    "fairface_gender": "FairFace gender",
    "fairface_ages": "nine ages",
    "fairface_ages_within_one": "within one",
    "fairface_ethnicity": "ethnicity",
}
"""Keys of the figures in those files, and their column titles."""

_SENTENCE: Final = "People looking at their own photos on their own machines."
"""A sentence of the template, in every card."""

_BLANK: Final = re.compile(r"\{\{(\w+)\}\}")


def write_card(spec: ModelSpec, folder: Path) -> list[Path]:
    """Write a model's card beside its spec, as Markdown and as HTML.

    Args:
        spec: of the model.
        folder: holds its results file, and optionally ``dedupe.json`` (label noise), ``seeds.json``
            and ``ablation-head.json`` (variation by chance).

    Returns:
        The files written.

    Raises:
        OptionError: the results are for other weights, or the hand-written part cannot be used.
    """
    results, dedupe = read_results(folder, spec.name)
    if results["model"]["sha256"] != spec.sha256:
        raise OptionError(
            f"the results are for weights {results['model']['sha256'][:12]}, the spec is for "
            f"{spec.sha256[:12]}: evaluate first"
        )
    seeds, heads = (_read_list(folder / name) for name in (SEEDS, HEADS))
    card = build_card(results, hand_written(spec), dedupe=dedupe, seeds=seeds, heads=heads)
    markdown, page = card_paths(spec)
    write_text(markdown, card.markdown())
    write_text(page, card.html())
    return [markdown, page]


def card_paths(spec: ModelSpec) -> list[Path]:
    """The model's card, as Markdown and as a page."""
    return [spec.path.with_suffix(suffix) for suffix in (".md", ".html")]


def is_card(path: Path) -> bool:
    """Whether a file is a card that ``write_card`` wrote."""
    try:
        return _SENTENCE in path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False


def hand_written(spec: ModelSpec) -> dict[str, str]:
    """The sections of a model's hand-written part, by lower-case name.

    Raises:
        OptionError: the file is missing, or lacks the section "Training" or "Failures".
    """
    path = spec.path.parent / "cards" / f"{spec.name}.md"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(
            f"{spec.name} has no hand-written part of its card at {path} ({error}): write one with "
            "the headings '## Training' and '## Failures', as cards/facewise-default.md has"
        ) from error
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    found = {
        name.strip().lower(): body.strip()
        for name, body in zip(parts[1::2], parts[2::2], strict=True)
    }
    if lacking := {"training", "failures"} - {name for name, body in found.items() if body}:
        raise OptionError(f"{path} lacks the section {' and '.join(sorted(lacking))}")
    if unknown := set(_BLANK.findall("".join(found.values()))) - set(FILLED):
        raise OptionError(
            f"{path} has blanks that nothing fills: {', '.join(sorted(unknown))}; there are "
            f"{', '.join(FILLED)}"
        )
    return found


def build_card(
    results: Mapping[str, Any],
    written: Mapping[str, str],
    *,
    dedupe: Mapping[str, Any] | None = None,
    seeds: Sequence[Mapping[str, Any]] = (),
    heads: Sequence[Mapping[str, Any]] = (),
) -> Report:
    """The card: the template with its blanks filled in.

    Args:
        results: plain numbers, as in a results file.
        written: "training" and "failures", in Markdown.
        dedupe: the summary that ``facewise dedupe`` wrote.
        seeds: exports that differ in the seed of their last stage, as
            ``scripts/compare_exports.py`` wrote them; ignored unless this model is among them.
        heads: heads on frozen features, as ``scripts/sweep_frozen.py head`` wrote them.
    """
    model = results["model"]
    filled = {
        section: _BLANK.sub(lambda match: FILLED[match[1]](results), text)
        for section, text in written.items()
    }
    blanks = {**_model(results), **_analyses(results), **filled}
    blanks["known_of_test"] = " ".join(known_of_test(results).values())
    blanks["noise"] = ""
    ours = any(row["sha256"] == model["sha256"] for row in seeds)
    blanks["seeds"] = _spread(seeds, heads) if ours else ""
    counted = dedupe and dedupe.get("label_noise", {}).get("age", {}).get("n_groups")
    if dedupe and counted and any("UTKFace" in source for source in model["data"]):
        blanks["noise"] = noise_words(results, dedupe)
    template = TEMPLATE.read_text(encoding="utf-8")
    text = _BLANK.sub(lambda match: blanks[match[1]], template)
    card = Report(f"{model['name']} {model['version']}: model card")
    card.text(re.sub(r"\n{3,}", "\n\n", text))
    return card


def _model(results: Mapping[str, Any]) -> dict[str, str]:
    model, data = results["model"], results["data"]
    part = escaped(tables.part_name(results["split"], "the {} split"))
    faces = [
        f"{name}: {n} faces of {part}, {len(data['not_found'][name])} not found"
        for name, n in data["faces"].items()
    ]
    left_out = len(data["excluded"])
    faces.append(f"left out on purpose ({LEFT_OUT}): {left_out or 'none'}")
    return {
        "description": model["description"],
        "summary": _summary(results),
        "details": _bullets(
            [
                f"name and version: `{model['name']}@{model['version']}`",
                f"SHA-256 of the weights: `{model['sha256']}`",
                f"{model['size_bytes'] / 1e6:.1f} MB of ONNX; input: an aligned face of "
                f"{model['size_px']} x {model['size_px']} px, RGB",
                "outputs: probabilities of 120 single years of age, and of the 19 classes of the "
                "vector (12 decades, two genders, five ethnicities)",
                "all results on this page are written by `facewise evaluate --fit --card`, none by "
                "hand",
            ]
        ),
        "data": _bullets(faces),
        "sources": _bullets(model["data"]),
        "licences": f"{model['licence']}.",
    }


def _read_list(path: Path) -> list[dict[str, Any]]:
    """Rows of a results file; none if there is no such file."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return found["rows"] if isinstance(found, dict) else found


def _spread(seeds: Sequence[Mapping[str, Any]], heads: Sequence[Mapping[str, Any]]) -> str:
    """Lowest and highest value of each figure across seeds."""
    names = [row["variant"].partition(", seed ") for row in heads]
    several = {name for name, seed, _ in names if seed}
    same = [row for row, (name, *_) in zip(heads, names, strict=True) if name in several]
    kinds = {
        "the last stage, on val": seeds,
        "a head on frozen features, on val and faces kept from train": same,
    }
    rows = [
        [
            f"{name}, {len(some)} seeds",
            *(_range(key, [row[key] for row in some]) for key in FIGURES),
        ]
        for name, some in kinds.items()
        if some
    ]
    return "How much the seed alone changes, from lowest to highest:\n\n" + _table(
        ["", *FIGURES.values()], rows
    )


def _range(key: str, values: Sequence[float]) -> str:
    ends = min(values), max(values)
    return " to ".join(f"{v:.2f}" if key.endswith("mae") else f"{v:.1%}" for v in ends)


def _summary(results: Mapping[str, Any]) -> str:
    lines = []
    for dataset, row in results["head"]["overall"].items():
        figures = [
            f"{tables.name_of(metric)} {cell(metric, figure)}"
            for metric, figure in row.items()
            if isinstance(figure, Mapping)
        ]
        lines.append(f"**{dataset}**: {'; '.join(figures)}.")
    return _bullets(lines)


def _analyses(results: Mapping[str, Any]) -> dict[str, str]:
    single: list[str] = []
    crossed: list[str] = []
    for dataset, groupings in results["groups"].items():
        own = results["by"][dataset]
        for grouping, table in groupings.items():
            title = f"#### {dataset}, by {escaped(grouping)}"
            block = f"{title}\n\n{_table(*tables.group_table(table))}"
            (single if grouping in (*SINGLE, *own) else crossed).append(block)
    nist = [tables.nist_mae(results), tables.challenge_25(results)]
    calibrated = "before" in tables.stages(results)
    scaling = " before and after temperature scaling" if calibrated else " (not calibrated)"
    return {
        "worst": _table(*tables.worst(results["head"]["worst_groups"])),
        "overall": _table(*tables.overall(results)),
        "groups": "\n\n".join(single),
        "crossings": "\n\n".join(crossed),
        "coverage": _table(*tables.coverage(results)),
        "missed": _table(*tables.missed(results)),
        "calibration": "\n\n".join(
            [
                f"Expected calibration error{scaling}, and what perfectly calibrated "
                "probabilities would show by chance (for groups by the output's own label, with "
                "labels drawn from the probabilities).",
                _table(*tables.calibration(results)),
                _table(*tables.calibration_by_group(results)),
            ]
        ),
        "inputs": INPUTS if len(results["abstention"]) > 1 else "",
        "abstention": _table(*tables.abstention(results)),
        "nist": "\n\n".join(_table(*t) for t in nist) or NONE,
    }


def _bullets(items: Sequence[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table as ``Report.table`` writes it; a sentence instead if it has no rows."""
    return markdown_table(header, rows, rule="| --- ") if rows else "Too few labelled faces."
