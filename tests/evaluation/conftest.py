"""Results to render reports and cards from, made once per session."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from facewise.calibration import Calibration
from facewise.dedupe.noise import label_noise
from facewise.evaluation.coverage import fit_baseline
from facewise.evaluation.outcomes import Outcomes
from facewise.evaluation.results import score_model, write_results
from facewise.evaluation.scoring import Scored
from facewise.models import load_spec

from .made import made, years


def random_outcomes(n: int, dataset: str, seed: int) -> Outcomes:
    rng = np.random.default_rng(seed)
    ages = rng.integers(16, 36, n)
    said = [years(*range(a - 4, a + 5)) for a in np.clip(ages + rng.integers(-6, 7, n), 6, 100)]
    genders, ethnicities = rng.integers(0, 2, n), rng.integers(0, 2, n)
    sure = rng.uniform(0.3, 0.99, n)
    said_genders = np.where(genders[:, None] == np.arange(2), sure[:, None], 1 - sure[:, None])
    said_ethnicities = np.where(
        ethnicities[:, None] == np.arange(5), sure[:, None], (1 - sure[:, None]) / 4
    )
    exact = [(int(a), int(a)) for a in ages]
    grouped = [(20, 29) if a < 30 else (30, 39) for a in ages]
    return made(
        n,
        age=exact if dataset == "utkface" else grouped,
        said_ages=said,
        gender=genders.tolist(),
        said_genders=said_genders.tolist(),
        ethnicity=ethnicities.tolist(),
        said_ethnicities=said_ethnicities.tolist(),
        found=(rng.random(n) > 0.02).tolist(),
        dataset=dataset,
    )


def joined(*parts: Outcomes) -> Outcomes:
    names = Outcomes.__dataclass_fields__
    return Outcomes(**{n: np.concatenate([getattr(p, n) for p in parts]) for n in names})


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results as read back from a results file."""
    outcomes = joined(random_outcomes(330, "utkface", 0), random_outcomes(90, "fairface", 1))
    spec = load_spec("default")
    calibration = Calibration.from_dict(spec.calibration)
    raw = score_model(
        spec,
        outcomes,
        "test",
        degraded={"blur-7%": random_outcomes(60, "utkface", 2)},
        baseline=fit_baseline(Scored(random_outcomes(200, "utkface", 3), calibration)),
        excluded=["left-out.jpg"],
    )
    path = tmp_path_factory.mktemp("results") / "results.json"
    write_results(raw, path)
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    loaded["suspect_labels"] = [
        {
            "file": f"{k}.jpg",
            "attribute": "age",
            "label": "80",
            "answer": "20",
            "p_label": 0.01,
            "p_answer": 0.9,
            "surprise": 4.5,
        }
        for k in range(30)
    ]
    return loaded


@pytest.fixture(scope="session")
def dedupe() -> dict[str, Any]:
    """The parts of a ``facewise dedupe`` summary that are read."""
    pairs = [[{"age": 20 + k, "gender": 0}, {"age": 24 + k, "gender": k % 2}] for k in range(40)]
    return {"label_noise": label_noise(pairs)}
