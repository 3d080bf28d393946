"""Calibrates and scores a model, from data to figures."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from facewise.calibration import Calibration
from facewise.data.tight_crops import DETECTION_BORDER
from facewise.errors import OptionError
from facewise.evaluation.coverage import Baseline, fit_baseline
from facewise.evaluation.data import EvaluationData
from facewise.evaluation.degrade import degradations
from facewise.evaluation.fit import MIN_FACES, check_faces, fit_calibration
from facewise.evaluation.gate_figures import gate_curves
from facewise.evaluation.gates import GATE_FACES, fit_gates, with_gates
from facewise.evaluation.outcomes import Outcomes, collect
from facewise.evaluation.results import calibrated, next_minor, score_model
from facewise.evaluation.scoring import Scored
from facewise.evaluation.suspects import suspects_of
from facewise.models import ModelSpec, load_spec
from facewise.reporting.confusions import fit_sources

log = logging.getLogger("facewise")

DEGRADED: Final = 450
"""Faces of each of the shared data sets to degrade."""


@dataclass(frozen=True, slots=True, eq=False)
class Runner:
    """Runs a model over splits of some data.

    Attributes:
        model: name, name@version, or a spec's path.
        data: the data; excluded pictures have no outcome.
        degraded: number of faces of each data set to degrade, 0 for none.
        store: folder for stored outcomes; None stores none.
        workers: processes, one thread each.
        border: grey border around each picture, as a share of its width; 0 for none.
        unreadable: receives the key of each picture that cannot be read, and why.
    """

    model: str
    data: EvaluationData
    degraded: int
    store: Path | None = None
    workers: int = 2
    border: float = DETECTION_BORDER
    unreadable: dict[str, str] = field(default_factory=dict)

    def outcomes(self, part: str) -> Outcomes:
        """Outcomes of all faces of a split.

        Raises:
            OptionError: the split has no face, none can be read, or none is left after exclusions.
        """
        return self._run(part)

    def worsened(self, part: str) -> dict[str, Outcomes]:
        """Outcomes of degraded versions of some of a split's faces, by degradation."""
        if not self.degraded:
            return {}
        # Gates are chosen on at most GATE_FACES; the scored split has no such limit.
        faces = self.degraded if part == self.data.split else min(self.degraded, GATE_FACES)
        return {name: self._run(part, name, faces) for name in degradations(self.border)}

    def _run(self, part: str, degradation: str | None = None, faces: int | None = None) -> Outcomes:
        everything = collect(
            self.model,
            self.data.sets_of(part),
            part,
            store=self.store,
            workers=self.workers,
            sample=faces,
            degradation=degradation,
            border=self.border,
            skipped=self.unreadable,
        )
        left = everything.without(self.data.excluded)
        if not len(left):  # any others cannot be read, or were not drawn
            to_worsen = (" to worsen", ", or raise --degraded") if faces else ()
            raise self.data.none_left(part, *to_worsen)
        return left


class Fitted(NamedTuple):
    """Result of calibrating.

    Attributes:
        spec: calibrated spec of the model, not yet written to disk.
        baseline: plain conformal prediction fitted on the same faces, to compare with.
        curves: risk against share answered on val, where the gates were chosen.
    """

    spec: ModelSpec
    baseline: Baseline
    curves: dict[str, Any]


class Evaluated(NamedTuple):
    """Result of scoring.

    Attributes:
        spec: of the model as scored, recalibrated if requested.
        results: as ``write_results`` takes them.
        scored: the faces behind the results.
    """

    spec: ModelSpec
    results: dict[str, Any]
    scored: Scored


def default_degraded(data: EvaluationData, *, calibrate: bool) -> int:
    """Faces of each data set to degrade if the user names no number.

    None of the user's own, since that takes many times as long, except for a fit, which chooses
    its gates on them.
    """
    return DEGRADED if calibrate or data.shared else 0


def check_fit(spec: ModelSpec, data: EvaluationData) -> None:
    """Check what can be checked about a calibration before hours of scoring.

    Raises:
        OptionError: a split is missing, also the one to be scored; that is one that is fitted on;
            or no version follows the spec's.
    """
    if missing := {"calibration", "val"} - data.splits:
        raise OptionError(
            f"--fit needs the splits calibration and val; {data.source} lacks "
            f"{' and '.join(sorted(missing))}"
        )
    if data.split in ("", "calibration", "val"):
        raise OptionError(
            f"--fit with --split {data.split or 'all'} would score the faces that it fits on: "
            "leave --split out, and test is scored"
        )
    if not data.keys_of(data.split):
        raise OptionError(
            f"--fit scores the split {data.split} at the end, and {data.source} has no face of it: "
            "give some faces that split, or name another as --split"
        )
    try:
        next_minor(spec.version)
    except ValueError as error:
        raise OptionError(
            f"{spec.path}: no version follows {spec.version!r}, and a new calibration needs one: "
            "set it to the number of the weights, or to that and how often their calibration "
            'changed, as in "5.1"'
        ) from error


def fit(spec: ModelSpec, runner: Runner) -> Fitted:
    """Calibrate a model on the splits calibration and val.

    Temperatures and conformal thresholds are fitted on calibration, then the abstention gates on
    val, then, on calibration again, the confusions that audits use for correction.

    Raises:
        OptionError: as for ``check_fit``; or a split has too few faces, or none can be read.
    """
    check_fit(spec, runner.data)
    if runner.degraded < MIN_FACES:
        log.warning(
            "--degraded %d: the gates on size, sharpness, light and so on are chosen anew, on "
            "degraded faces; with fewer than %d of each data set, the model may come to answer "
            "where it should abstain. Leave --degraded out to have enough",
            runner.degraded,
            MIN_FACES,
        )
    calibration = runner.outcomes("calibration")
    fitted = fit_calibration(calibration)
    ungated = Calibration.from_dict(fitted)
    val = runner.outcomes("val")
    check_faces(val, "val")
    worsened = runner.worsened("val")
    gates = fit_gates(Scored(val, ungated), _scored(worsened, ungated))
    gated = with_gates(fitted, gates)
    confusions = _fit_confusions(Scored(calibration, ungated))
    return Fitted(
        spec=calibrated(spec, {**fitted, "gates": gates, "confusions": confusions}),
        baseline=fit_baseline(Scored(calibration, gated)),
        curves={"val": gate_curves(Scored(val, gated), _scored(worsened, gated))},
    )


def evaluate_model(runner: Runner, *, calibrate: bool = False) -> Evaluated:
    """Score a model on the data's split; only stored outcomes are written to disk.

    Args:
        runner: of the model.
        calibrate: fit a calibration first, and score with it.

    Raises:
        OptionError: as for ``fit``.
    """
    spec, data = load_spec(runner.model), runner.data
    baseline: Baseline | None = None
    curves: dict[str, Any] = {}
    if calibrate:
        spec, baseline, curves = fit(spec, runner)
    outcomes = runner.outcomes(data.split)
    columns = data.columns_of(outcomes)
    results = score_model(
        spec,
        outcomes,
        data.split or "all",
        border=runner.border,
        degraded=runner.worsened(data.split),
        baseline=baseline,
        curves=curves,
        skipped=[
            *(pair for data_set in data.whole for pair in data_set.skipped),
            *(pair for pair in runner.unreadable.items() if pair[0] not in data.excluded),
        ],
        excluded=sorted(data.excluded & data.keys_of(data.split)),
        lists=data.lists,
        columns=columns,
    )
    scored = Scored(outcomes, Calibration.from_dict(spec.calibration), columns)
    results["suspect_labels"] = suspects_of(scored)
    return Evaluated(spec, results, scored)


def _scored(outcomes: Mapping[str, Outcomes], calibration: Calibration) -> dict[str, Scored]:
    return {name: Scored(o, calibration) for name, o in outcomes.items()}


def _fit_confusions(scored: Scored) -> dict[str, dict[str, Any]]:
    o = scored.outcomes
    classes = {name: (p, scored.truth[name]) for name, p in scored.probabilities.items()}
    return fit_sources(o.datasets, o.found, o.groups, scored.ages, o.age_ranges, classes)
