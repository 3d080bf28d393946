"""Runs the attribute network: from a batch of aligned crops to probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from facewise.errors import ModelError, ModelIntegrityError
from facewise.labels import PARTS
from facewise.models import ModelSpec, Provider, open_session
from facewise.types import FloatArray, ImageArray

BATCH_SIZE: Final = 32
"""Crops per run of the network: larger inputs are split, so that memory stays flat."""

SUM_ROUNDING: Final = 1e-6
"""Probabilities in single precision sum to 1 within this, in half precision within a thousandth."""

SUM_TOLERANCE: Final = 0.01
"""What sums to something farther from 1 was no probability in any precision."""


class AttributeModel:
    """An attribute network on ONNX Runtime. Thread-safe.

    Raises:
        ModelIntegrityError: weights and spec do not belong together.
        OptionError: see ``open_session``.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        threads: int | None = None,
        providers: Sequence[Provider] | None = None,
    ) -> None:
        self.spec = spec
        self._session = open_session(
            spec.weights_path, spec.sha256, threads=threads, providers=providers
        )
        self._check_network()

    def _check_network(self) -> None:
        """Refuse what would fail at the first face, or at the first two."""
        size, inputs, outputs = self.spec.size_px, self._session.inputs, self._session.outputs
        widths = {tensor.name: tensor.shape[1:] for tensor in outputs}
        if (
            [(t.name, t.type, t.shape[1:]) for t in inputs]
            != [("image", "tensor(uint8)", [size, size, 3])]
            or isinstance(inputs[0].shape[0], int)
            or (widths.get("ages"), widths.get("vector")) != ([120], [19])
        ):
            taken, given = (", ".join(map(str, tensors)) for tensors in (inputs, outputs))
            raise ModelIntegrityError(
                f"{self.spec.path}: its network takes {taken} and gives {given}, but must take "
                f"image tensor(uint8) ['N', {size}, {size}, 3], for any N, and give ages (N, 120) "
                "and vector (N, 19): export the model again"
            )

    def predict(self, crops: ImageArray) -> tuple[FloatArray, FloatArray]:
        """Compute probabilities, not yet calibrated.

        Args:
            crops: uint8 ``(N, S, S, 3)``, RGB, aligned to the spec's template; N may be 0.

        Returns:
            ``ages`` float32 ``(N, 120)`` over single years, and ``vector`` float32 ``(N, 19)``. The
            years, and each attribute of the vector, sum to 1, also where a network or an
            accelerator computes in half precision.

        Raises:
            ValueError: ``crops`` has another shape or dtype.
            ModelError: the network's answers are no numbers, or no probabilities.
        """
        size = self.spec.size_px
        if crops.dtype != np.uint8 or crops.shape[1:] != (size, size, 3):
            raise ValueError(
                f"crops must be uint8 (N, {size}, {size}, 3), not {crops.dtype} {crops.shape}"
            )
        if len(crops) == 0:
            return np.empty((0, 120), np.float32), np.empty((0, 19), np.float32)
        ages, vectors = [], []
        for start in range(0, len(crops), BATCH_SIZE):
            part_ages, part_vector = self._session.run(
                ["ages", "vector"], {"image": crops[start : start + BATCH_SIZE]}
            )
            ages.append(part_ages)
            vectors.append(part_vector)
        years, vector = np.concatenate(ages), np.concatenate(vectors)
        # Accelerators may overflow in half precision, and of NaN the first label would be the top.
        if not (np.isfinite(years).all() and np.isfinite(vector).all()):
            raise ModelError(
                f"{self.spec.name} gave answers that are not numbers (NaN): the weights or the "
                "execution provider are at fault; use providers=['CPUExecutionProvider']"
            )
        try:
            parts = [vector[:, part] for part in PARTS.values()]
            return as_distributions(years), np.hstack([as_distributions(part) for part in parts])
        except ValueError as error:
            raise ModelError(
                f"{self.spec.name} gave answers that are no probabilities ({error}): its network "
                "must end in one softmax for the years, one for gender and one for ethnicity"
            ) from error


def as_distributions(p: FloatArray) -> FloatArray:
    """Divide rows ``(N, K)`` by their sums where more than single precision keeps these from 1.

    Raises:
        ValueError: a row sums to something else, or a value is negative.
    """
    sums = p.sum(axis=1, dtype=np.float64, keepdims=True)
    off = np.abs(sums - 1)
    if off.max() > SUM_TOLERANCE:
        raise ValueError(f"they sum to {sums[off.argmax()].item():.3g}, not 1")
    if p.min() < 0:
        raise ValueError("some are negative")
    return np.where(off > SUM_ROUNDING, p / sums, p).astype(np.float32)
