"""A results file as a readable page, with the worst results first."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from facewise.data.tight_crops import DETECTION_BORDER
from facewise.evaluation import report_tables as tables
from facewise.evaluation.coverage import MIN_COVERAGE_GROUP
from facewise.evaluation.degrade import INPUTS
from facewise.evaluation.gate_figures import MIN_ANSWERED
from facewise.evaluation.gates import RISK_LIMIT
from facewise.evaluation.groups import MIN_GROUP
from facewise.evaluation.reliability import GROUPINGS, MIN_ECE_GROUP
from facewise.evaluation.report_words import below_the_estimate, known_of_test, noise_words
from facewise.evaluation.suspects import COLUMNS
from facewise.files import has_header, write_csv
from facewise.reporting import plots
from facewise.reporting.bootstrap import MIN_GROUPS
from facewise.reporting.figures import SHARE, YEARS, cell, number
from facewise.reporting.report import Report, escaped

MIN_BIN: Final = 10
"""Fewest faces for a bin to be drawn in a group's diagram: a share of a handful says nothing."""

SUSPECTS_SHOWN: Final = 20
LEFT_OUT: Final = "near-duplicates of pictures in another split, or listed by --exclude"
COVERAGE_LEVEL: Final = "0.9"

_BEGINNING: Final = "All figures for apparent age, gender and ethnicity include facewise's own"

_KEYS: Final = frozenset(("format", "head", "overall", "calibration_error"))
"""Keys of every results file, and of hardly anything else."""


def report_paths(folder: Path, name: str) -> list[Path]:
    """Paths of a model's results file, its pages, and its list of suspect labels."""
    return [folder / f"{name}{end}" for end in (".json", ".md", ".html", "-suspects.csv")]


def is_report(path: Path) -> bool:
    """Whether a file is one that a report consists of; False if it cannot be read."""
    if path.suffix == ".csv":
        return has_header(path, COLUMNS)
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix != ".json":
            return _BEGINNING in text
        results = json.loads(text)
    except (OSError, ValueError):
        return False
    return isinstance(results, dict) and results.keys() >= _KEYS


def read_results(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Read a model's results file, and ``dedupe.json`` if it is in the same folder."""
    beside = folder / "dedupe.json"
    dedupe = json.loads(beside.read_text(encoding="utf-8")) if beside.exists() else None
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8")), dedupe


def write_reports(folder: Path, name: str) -> list[Path]:
    """Write the report beside its results file, as Markdown with figures and as HTML.

    Suspect labels are written to a separate CSV.

    Args:
        folder: of the results file.
        name: of the model, and of the file.

    Returns:
        The pages and the CSV written, without figures.
    """
    results, dedupe = read_results(folder, name)
    path, *written, listing = report_paths(folder, name)
    build_report(results, dedupe=dedupe).write(path)
    listing.unlink(missing_ok=True)  # an earlier run's
    if rows := results.get("suspect_labels"):
        write_csv(listing, COLUMNS, rows)
        written.append(listing)
    return written


def build_report(results: Mapping[str, Any], *, dedupe: Mapping[str, Any] | None = None) -> Report:
    """Build the report from a results file, and ``dedupe.json`` if given."""
    model = results["model"]
    part = tables.part_name(results["split"], "the {} split")
    title = f"{model['name']}@{model['version']} on {part}"
    page = Report(title, sections=True)
    page.text(
        f"Weights `{model['sha256'][:12]}`, {model['size_bytes'] / 1e6:.1f} MB, "
        f"{model['size_px']} px. {_BEGINNING} detection and alignment. "
        f"{_framing(results)} A face that is not found "
        "is wrong in every classification, counts as age 33, and lies outside its interval and its "
        "label sets.\n\n"
        'Figures in brackets are 95 % intervals. Under "Intervals and label sets", for coverage '
        'under "Overall", and for ages 14 to 17 called 25 or more, they are '
        "Wilson's, with each face as one observation. All others are from a bootstrap "
        "that resamples listed near-duplicates together, as one photo; a share of 0 or 100 % has "
        "Wilson's interval over photos instead, and other figures of fewer "
        f"than {MIN_GROUPS} photos have none."
    )
    page.text(known_of_test(results).get("splits", ""))
    _head(page, results)
    _groups(page, results)
    _confusions(page, results)
    _calibration(page, results)
    _coverage(page, results)
    _abstention(page, results)
    _nist(page, results)
    _noise(page, results, dedupe)
    _left_out(page, results)
    return page


def _framing(results: Mapping[str, Any]) -> str:
    if "border" not in results:
        return (
            f"Each picture got a grey border of {DETECTION_BORDER:.0%} of its width: without it, "
            "fewer faces are found in pictures that are cropped to the face, as UTKFace's and "
            "FairFace's are. For ordinary photos there is `--border 0`."
        )
    border = results["border"]
    how = f"got a grey border of {border * 100:g}% of their width" if border else "got no border"
    return (
        f"The pictures {how} (`--border {border:g}`), where by default each gets one of "
        f"{DETECTION_BORDER:.0%} of its width: do not compare the figures with those of other "
        "reports."
    )


def _head(page: Report, results: Mapping[str, Any]) -> None:
    page.heading("Worst groups and gaps")
    page.text(
        "For each metric: first the grouping with the widest gap (among ethnicity, gender, age, "
        "and ethnicity by gender), then the worst group of any finer crossing. Only groups of "
        f"{MIN_GROUP} faces or more are counted. The worst of so many groups is partly chance: see "
        "its interval."
    )
    if lines := tables.by_column(results):
        page.text(
            "For your own columns, the worst group of each metric follows in a row of its own:"
        )
        page.bullets(escaped(line) for line in lines)
    page.table(*tables.worst(results["head"]["worst_groups"]))
    page.heading("Overall")
    page.table(*tables.overall(results))
    page.table(*tables.coverage_in_short(results))
    if results["calibration_error"]:
        page.text("Expected calibration error:")
        page.table(*tables.calibration(results))
    shares = results["head"]["abstained_clean"]
    page.bullets(
        [
            "abstained from, as a share of the clean faces that were found: "
            + "; ".join(f"{n} {number(SHARE, s)}" for n, s in shares.items()),
            *tables.missed_in_short(results),
            *(
                f"degraded faces, {line}: {', '.join(names) or 'none'}"
                for line, names in tables.ratios_in_short(results).items()
            ),
        ]
    )
    for dataset, decades in results["age_by_decade"].items():
        if decades:
            page.heading(f"Age error by decade, {dataset}", 3)
            page.plot(
                f"age-by-decade-{dataset}",
                plots.intervals(
                    decades,
                    title="age MAE by labelled decade (n)",
                    x_label="years",
                    line=results["overall"][dataset]["age_mae_years"]["value"],
                ),
                f"Mean absolute age error by decade of the labelled age on {dataset}, with 95 % "
                "intervals; the dashed line is the overall error.",
            )
            page.table(
                ["decade", "age MAE, years", "n"],
                [[d, cell(YEARS, f), f["n"]] for d, f in decades.items()],
            )


def _groups(page: Report, results: Mapping[str, Any]) -> None:
    page.heading("By group")
    page.text(
        f"Groups of {MIN_GROUP} faces or more. The intervals of small groups are wide: "
        "read them before the values."
    )
    for dataset, groupings in results["groups"].items():
        for grouping, table in groupings.items():
            page.heading(f"{dataset}, by {escaped(grouping)}", 3)
            page.table(*tables.group_table(table))


def _confusions(page: Report, results: Mapping[str, Any]) -> None:
    page.heading("Confusion matrices")
    for dataset, matrices in results["confusions"].items():
        for name, matrix in matrices.items():
            title = tables.OUTPUTS.get(name, name)
            page.plot(
                f"confusion-{dataset}-{name.replace('_', '-')}",
                plots.confusion(matrix["n"], matrix["labels"], matrix["answers"]),
                f"Confusion matrix of {title} on {dataset}; {_read_out(matrix)}.",
            )


def _read_out(matrix: Mapping[str, Any]) -> str:
    """The share of each label that is answered correctly, in words."""
    shares = []
    for index, (label, row) in enumerate(zip(matrix["labels"], matrix["n"], strict=True)):
        if sum(row):
            shares.append(f"{label} {row[index] / sum(row):.0%}")
    return "answered correctly: " + ", ".join(shares)


def _calibration(page: Report, results: Mapping[str, Any]) -> None:
    if not results["calibration_error"]:  # no labelled face was found
        return
    page.heading("Calibration")
    kinds = tables.stages(results)
    scaled = "before" in kinds
    how = (
        "before and after temperature scaling (one temperature per output)"
        if scaled
        else "of the network's own probabilities: the model is not calibrated (`--fit`)"
    )
    page.text(
        f"Expected calibration error in 15 bins, {how}. "
        '"By chance" is what perfectly calibrated probabilities would show on as many faces.'
    )
    page.table(*tables.calibration(results))
    for name, row in results["calibration_error"].items():
        title = tables.OUTPUTS.get(name, name)
        page.plot(
            f"reliability-{name.replace('_', '-')}",
            plots.reliability(
                {said: row[kind]["points"] for kind, said in kinds.items()},
                f"reliability: {title}",
            ),
            f"Reliability of {title}: stated probability against the share of right answers; "
            "calibration error "
            + (f"{row['before']['ece']:.3f} before temperature scaling, " if scaled else "")
            + f"{row['after']['ece']:.3f}{' after' if scaled else ''}.",
        )
    page.heading("Calibration error by group", 3)
    page.text(
        f"Groups of {MIN_ECE_GROUP} faces or more, the worst first. Among faces that share a "
        "label, answers are not right as often as they state, however well calibrated the "
        'probabilities: for men, every answer "female" is wrong. So where groups are formed by '
        'the output\'s own label, "by chance" forms them by labels drawn from the probabilities '
        "instead of the true ones."
    )
    page.table(*tables.calibration_by_group(results))
    for name, row in results["calibration_error"].items():
        title = tables.OUTPUTS.get(name, name)
        for grouping, curves in _reliability_by_group(row["groups"]).items():
            page.plot(
                f"reliability-{name}-by-{grouping}".replace("_", "-").replace(" ", "-"),
                plots.reliability(curves, f"reliability: {title}, by {grouping}"),
                f"Reliability of {title}{' after temperature scaling' if scaled else ''}, by "
                f"{grouping}, in five bins; "
                f"only bins of {MIN_BIN} faces or more are drawn.",
            )


def _reliability_by_group(groups: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Grouping to group to points of 10 faces or more, for groupings with at least two groups.

    The user's own columns appear in the table only, because they can have any number of groups.
    """
    found: dict[str, dict[str, Any]] = {}
    for key, row in groups.items():
        grouping, _, group = key.partition(": ")
        points = [point for point in row["points"] if point[2] >= MIN_BIN]
        if grouping in ("data set", *GROUPINGS):
            found.setdefault(grouping, {})[f"{group} ({row['n']})"] = points
    return {grouping: curves for grouping, curves in found.items() if len(curves) > 1}


def _coverage(page: Report, results: Mapping[str, Any]) -> None:
    page.heading("Intervals and label sets")
    page.text(_how_fitted(results["calibration"]))
    page.text(known_of_test(results).get("intervals", ""))
    page.table(*tables.coverage(results))
    page.heading("Undercovered groups", 3)
    page.text(
        f"Groups of {MIN_COVERAGE_GROUP} faces or more whose coverage is below the level even at "
        "the upper end of its 95 % Wilson interval. Chance puts a group here now and then; for a "
        "group that is here at several levels, or far below one, the model is overconfident."
    )
    page.table(*tables.missed(results))
    cells = results["coverage"].get(COVERAGE_LEVEL, {}).get("interval_groups", {})
    named = {tables.group_name(group): figure for group, figure in cells.items()}
    if groups := dict(sorted(named.items(), key=lambda item: tables.natural(item[0]))):
        page.plot(
            "coverage-by-group",
            plots.intervals(
                groups,
                title="coverage of 90 % age intervals (n)",
                x_label="share",
                line=float(COVERAGE_LEVEL),
            ),
            "Share of ages inside their 90 % interval by group, with 95 % Wilson intervals; the "
            "dashed line is 90 %. The table below has the same figures.",
        )
        page.table(
            ["group", "coverage", "mean width", "n"],
            [
                [
                    escaped(group),
                    cell(SHARE, f),
                    tables.size({"mean_width_years": f["mean_size"]}),
                    f["n"],
                ]
                for group, f in groups.items()
            ],
        )


def _how_fitted(calibration: Mapping[str, Any]) -> str:
    fitted = {"age intervals": "age_intervals", "label sets": "label_sets"}
    said = [
        f"{what[0].upper()}{what[1:]} are conformal, fitted on the calibration split."
        for what, key in fitted.items()
        if calibration.get(key)
    ]
    if not calibration.get("age_intervals"):
        said.append(
            "Age intervals are the central intervals of the model's own distribution. They were "
            "not fitted to exact ages, so only this table shows how often they hold."
        )
    if not calibration.get("label_sets"):
        said.append(
            "Label sets were not fitted: they hold the most probable labels that together "
            "reach the level."
        )
    said.append(
        'The "plain" columns show split conformal prediction with one threshold for everybody, '
        "where that can be fitted. Where only an age group is known, an interval counts as "
        "holding the age if it touches the group."
    )
    return " ".join(said)


def _abstention(page: Report, results: Mapping[str, Any]) -> None:
    page.heading("Abstention")
    degraded = len(results["abstention"]) > 1
    sample = (
        ", and a random sample of each data set degraded in several ways (`--degraded`; those left "
        "out on purpose or unreadable are not replaced by others, so n can be a little smaller)"
        if degraded
        else "; none was degraded on purpose (`--degraded`)"
    )
    gates = (
        "Gates are chosen on val, from curves of error against the share answered."
        if results["calibration"].get("gates")
        else "The model has no gates, so it abstains from nothing (`--fit` chooses them)."
    )
    part = escaped(tables.part_name(results["split"]))
    page.text(
        f"{gates} The table has all clean faces of {part}{sample}. The error on "
        "answered degraded faces is divided by the error on answered clean faces, with each face "
        "compared to its own data set. Where only an age group is known, its middle stands for the "
        "age. The 95 % intervals are from a bootstrap over the degraded faces; fewer than "
        f"{MIN_ANSWERED} answers get no ratio. The ratio counts as at most {RISK_LIMIT:g} only if "
        "its whole interval is."
    )
    page.text(known_of_test(results).get("gates", ""))
    if degraded:
        page.text(INPUTS)
    page.table(*tables.abstention(results))
    faces = "clean and degraded faces together" if degraded else "clean faces"
    for split, attributes in results["risk_coverage"].items():
        part = tables.part_name(split)
        for name, curves in attributes.items():
            names = ("clean", "with degraded") if degraded else ("clean",)
            lines = {n: curves[n] for n in names if curves.get(n)}
            chosen = curves.get("chosen")
            mark = (
                f"; the certainty gate alone answers {chosen[0]:.1%} of the clean faces"
                if chosen
                else ""
            )
            page.plot(
                f"risk-coverage-{split}-{name}",
                plots.lines(
                    lines,
                    title=f"{name}, {part}",
                    x_label="share answered, most certain first",
                    y_label="mean error, years" if name == "age" else "share wrong",
                    marks={"clean": chosen} if chosen else None,
                ),
                f"Error on answered faces against the share answered: {name} on {part}{mark}.",
            )
            measures = curves["by measure"]
            page.plot(
                f"risk-coverage-{split}-{name}-by-measure",
                plots.lines(
                    {measure: row["points"] for measure, row in measures.items()},
                    title=f"{name}, {part}, clean{' and degraded' if degraded else ''}",
                    x_label="share answered, best by this measure first",
                    y_label="mean error, years" if name == "age" else "share wrong",
                    marks={m: row["chosen"] for m, row in measures.items() if row["chosen"]},
                ),
                "Error on answered faces against the share answered, by each quality measure "
                f"alone: {name} on {part}, {faces}. Dots mark the "
                "chosen gates; a measure without a dot has no gate.",
            )


def _nist(page: Report, results: Mapping[str, Any]) -> None:
    mae, challenge = tables.nist_mae(results), tables.challenge_25(results)
    if not mae[1] and not challenge[1]:
        return
    page.heading("Age estimation in NIST's format")
    page.text(
        "**For information only; this does not make the model fit for age checks.** facewise is "
        "not for deciding who is old enough for anything."
    )
    page.table(*mae)
    page.table(*challenge)


def _noise(page: Report, results: Mapping[str, Any], dedupe: Mapping[str, Any] | None) -> None:
    suspects: Sequence[Mapping[str, Any]] = results.get("suspect_labels") or ()
    # The label noise in dedupe.json is that of UTKFace.
    noise = (dedupe or {}).get("label_noise", {}).get("age", {})
    if "utkface" not in results["overall"]:
        noise = {}
    if not suspects and not noise.get("n_groups"):
        return
    page.heading("How much of the error comes from the labels")
    if dedupe and noise.get("n_groups"):
        page.text(noise_words(results, dedupe))
        page.table(*tables.age_noise(results, dedupe))
        page.text(below_the_estimate(results, dedupe))
    if suspects:
        page.heading("Suspect labels", 3)
        page.text(
            f"`{results['model']['name']}-suspects.csv` lists the {len(suspects)} labels that "
            "surprise the model most and are worth checking; some are the model's own errors. For "
            "ages, the answer is the middle of the likeliest five years, and p is that of five "
            "years; for an age group, that of its years and two more on either side, and of the "
            "likeliest run of as many. "
            f"The first {min(SUSPECTS_SHOWN, len(suspects))}:"
        )
        page.table(*tables.suspects(suspects[:SUSPECTS_SHOWN]))


def _left_out(page: Report, results: Mapping[str, Any]) -> None:
    data = results["data"]
    page.heading("Pictures not scored, and faces not found")
    page.bullets(
        [
            f"left out on purpose ({LEFT_OUT}): {_names(data['excluded'])}",
            f"skipped on reading: {_names([f'{n}: {why}' for n, why in data['skipped']], 10)}",
            *(
                f"{dataset}, faces not found (counted as wrong): {_names(names)}"
                for dataset, names in data["not_found"].items()
            ),
        ]
    )


def _names(names: Sequence[str], most: int = 60) -> str:
    if not names:
        return "none"
    shown = ", ".join(f"`{name}`" for name in names[:most])
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)}: {shown}{more}"
