"""Caveats of an audit's figures, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from facewise.audit.audit import FEW_FACES
from facewise.labels import ATTRIBUTES
from facewise.text import counted

MANY_COPIES: Final = 10
"""Some copies are normal; this many, if also over a tenth of the pictures, are suspicious."""

_NOT_ASKED_FOR: Final = (
    f" (on video, annotate leaves it out unless asked: --attributes {','.join(ATTRIBUTES)})"
)


def notes_on(figures: Mapping[str, Any]) -> list[str]:
    """Notes that a reader needs before trusting the numbers."""
    notes = ["faces that were not found are in no share"]
    for said, table in (("", figures), ("second table: ", figures.get("second", {}))):
        if again := table.get("images_named_again"):
            notes.append(
                f"{said}{counted(again, 'image_id is', 'image_ids are')} in more than one table: "
                "if these are the same pictures, each counts more than once; keep their rows in "
                "one table alone, as docs/annotate.md shows (Errors)"
            )
        if tracks := table.get("tracks", {}).get("n"):
            rows, videos = table["tracks"]["rows"], table["tracks"]["videos"]
            notes.append(
                f"{said}on video a face is a track: {counted(rows, 'row makes', 'rows make')} "
                f"{counted(tracks, 'track', 'tracks')}; people who follow each other in the same "
                "place, as after a cut, may count as one; somebody who leaves the picture and "
                "returns counts again, so intervals treat each video as one observation "
                f"({counted(videos, 'video', 'videos')})"
            )
        if pictures := table.get("their_pictures"):
            copies = pictures["n"] - pictures["distinct"]
            if copies >= MANY_COPIES and copies * 10 > pictures["n"]:
                notes.append(
                    f"{said}{copies:,} of {pictures['n']:,} pictures have the very same "
                    "probabilities as others: they are there more than once, and shares count each "
                    "of them (facewise dedupe finds copies), or probabilities were rounded"
                )
        notes += [
            f"{said}{name} is known of {of:,} of {counted(table['faces'], 'face', 'faces')}: "
            + ("its shares are of these" if of else "it has no shares")
            + (_NOT_ASKED_FOR if tracks and name == "ethnicity" else "")
            for name, of in table.get("known_of", {}).items()
            if of < table["faces"]
        ]
        if few := table.get("too_few_to_correct"):
            kept = table["faces_that_stand_for_all"]
            among = f" in the sample of {kept:,}" if kept < table["faces"] else ""
            notes.append(
                f"{said}{', '.join(few)}: counted but not corrected (under {FEW_FACES} faces"
                f"{among})"
            )
    sources = figures["confusions_from"]
    if not sources:
        return notes
    if (kept := figures["faces_that_stand_for_all"]) < figures["faces"]:
        notes.append(f"counts are of all faces; corrections use a sample of {kept:,} of them")
    if len(sources) > 1:  # the intervals cover the caveats below
        for name in figures["attributes"]:
            have = [source for source in sources if name in figures["by_source"][source]]
            if 0 < len(have) < len(sources):
                notes.append(
                    f"{name} is corrected as on {' or '.join(have)}'s faces only: the model has no "
                    "other confusions for it"
                )
        return notes
    if "age" in figures["by_source"][sources[0]]:
        notes.append(
            "neighbouring decades are hard to tell apart: the 95 % interval of a single decade may "
            "hold its true share far less often than that"
        )
    for other, attributes in figures["by_source"].items():
        for name, values in attributes.items():
            rows = {row["label"]: row["corrected"] for row in figures["attributes"][name]}
            apart = [
                label
                for label, v in values.items()
                if not rows[label]["low"] - 0.02 <= v <= rows[label]["high"] + 0.02
            ]
            if apart:
                notes.append(
                    f"{name} with {other}'s errors (--confusions {other}) would differ by more "
                    f"than the interval for {', '.join(apart)}: without --confusions, intervals "
                    "cover both"
                )
    return notes
