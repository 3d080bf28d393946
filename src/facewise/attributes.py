"""Runs the attribute network: from a batch of aligned crops to probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from facewise.errors import ModelError, ModelIntegrityError
from facewise.models import ModelSpec, Provider, open_session
from facewise.types import FloatArray, ImageArray

BATCH_SIZE: Final = 32
"""Crops per run of the network: larger inputs are split, so that memory stays flat."""


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
        shape, size = self._session.input_shape, spec.size_px
        if shape[1:] != [size, size, 3]:
            raise ModelIntegrityError(
                f"{spec.path} says {size} pixels, its network takes {shape}: export the model again"
            )

    def predict(self, crops: ImageArray) -> tuple[FloatArray, FloatArray]:
        """Compute probabilities, not yet calibrated.

        Args:
            crops: uint8 ``(N, S, S, 3)``, RGB, aligned to the spec's template; N may be 0.

        Returns:
            ``ages`` float32 ``(N, 120)`` over single years, and ``vector`` float32 ``(N, 19)``.

        Raises:
            ValueError: ``crops`` has another shape or dtype.
            ModelError: the network's answers are not numbers.
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
        whole = np.concatenate(ages), np.concatenate(vectors)
        # Accelerators may overflow in half precision, and of NaN the first label would be the top.
        if not all(np.isfinite(part).all() for part in whole):
            raise ModelError(
                f"{self.spec.name} gave answers that are not numbers (NaN): the weights or the "
                "execution provider are at fault; use providers=['CPUExecutionProvider']"
            )
        return whole
