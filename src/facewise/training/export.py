"""Exports a checkpoint to an ONNX file that implements the whole contract, and to its spec.

The graph takes uint8 pictures ``(N, S, S, 3)``, RGB, and returns ``ages`` ``(N, 120)`` and
``vector`` ``(N, 19)``, both probabilities. Scaling and softmax are inside, so no consumer can get
them wrong.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from facewise.align import make_template
from facewise.errors import FacewiseError, ModelIntegrityError, OptionError
from facewise.files import write_json
from facewise.models import SPEC_FORM, SPEC_KIND, ModelSpec, open_session, read_spec
from facewise.training.config import NAME, TrainConfig
from facewise.training.network import (
    AttributeNetwork,
    bare_network,
    read_weights,
    split_logits,
)
from facewise.training.simplify import fold_padding
from facewise.types import ImageArray

log = logging.getLogger("facewise")

PARITY_TOLERANCE: Final = 1e-4
OPSET: Final = 18
_VERSION: Final = re.compile(r"\d+(\.\d+)?")


class ServingNetwork(nn.Module):
    """An attribute network from uint8 pictures to probabilities."""

    def __init__(self, network: AttributeNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        # Not ``probabilities``: the same nodes in another order would change the file's hash.
        logits = split_logits(self.network(image.permute(0, 3, 1, 2).float()))
        ages = logits.ages.softmax(-1)
        decades = ages.reshape(-1, 12, 10).sum(-1)
        vector = torch.cat([decades, logits.gender.softmax(-1), logits.ethnicity.softmax(-1)], -1)
        return ages, vector


def load_checkpoint(config: TrainConfig, path: Path) -> AttributeNetwork:
    """Load the network of a run, in eval mode, without reading the run's initial weights.

    Raises:
        OptionError: the checkpoint is missing, or is of another network.
    """
    if not path.exists():
        raise OptionError(f"{path} is missing: train {config.name} first")
    network = bare_network(config).to(memory_format=torch.channels_last)
    try:
        network.load_state_dict(read_weights(path, "model")["model"])
    except RuntimeError as error:
        raise OptionError(f"{path}: does not fit the network that its config describes") from error
    return network.eval()


def export_model(
    config: TrainConfig,
    checkpoint: Path,
    folder: Path,
    *,
    crops: ImageArray,
    fp16: bool = False,
    name: str,
    version: str,
    description: str,
    licence: str,
    data: list[str],
) -> Path:
    """Export a run under a name and a version; if that fails, existing files stay.

    Args:
        config: of the run.
        checkpoint: ``best.pt``.
        folder: for ``name.onnx`` and ``name.json``.
        crops: as for ``export_onnx``.
        fp16: as for ``export_onnx``.
        name: of the model.
        version: of its weights; after a dot, how often their calibration changed. Weights that the
            folder has under the same number before the dot keep theirs, and their calibration.
        description: for the spec.
        licence: terms of the weights, in one sentence, for the spec.
        data: data sets and weights behind the model, for the spec.

    Returns:
        The spec's path.

    Raises:
        FacewiseError: the ONNX file differs from PyTorch.
        OptionError: the name or version is malformed, or the folder holds other weights under that
            name and version.
    """
    if not re.fullmatch(NAME, name) or not _VERSION.fullmatch(version):
        raise OptionError(
            f"{name}@{version} cannot be used: a name consists of letters, digits, dots, dashes "
            "and underscores, a version of one number, such as 5, or two with a dot between them, "
            "such as 5.1, the second of which counts calibrations"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as partial:
        onnx_path = Path(partial) / f"{name}.onnx"
        digest = export_onnx(config, checkpoint, onnx_path, crops=crops, fp16=fp16)
        before = _exported_before(folder / f"{name}.json", version, digest)
        spec_path = write_spec(
            config,
            onnx_path,
            digest,
            name=name,
            version=version,
            description=description,
            licence=licence,
            data=data,
            before=before,
        )
        onnx_path.replace(folder / onnx_path.name)
        return spec_path.replace(folder / spec_path.name)


def _exported_before(path: Path, version: str, digest: str) -> ModelSpec | None:
    """The spec of the same weights, if they were exported under this version before.

    Raises:
        OptionError: the version is that of other weights, which someone may have pinned by it.
    """
    try:
        there = read_spec(path)
    except ModelIntegrityError:  # missing or broken: nothing that could be pinned
        return None
    if _major(there.version) != _major(version):
        return None
    if there.sha256 != digest:
        raise OptionError(
            f"{path.parent} already has {there.name}@{there.version} with other weights: "
            "raise --version"
        )
    return there


def _major(version: str) -> str:
    return version.partition(".")[0]


def export_onnx(
    config: TrainConfig, checkpoint: Path, out: Path, *, crops: ImageArray, fp16: bool = False
) -> str:
    """Write the ONNX file and check it against PyTorch on real faces.

    Args:
        config: of the run.
        checkpoint: ``best.pt``.
        out: the ``.onnx`` file.
        crops: uint8 ``(N, S, S, 3)`` aligned faces for the parity check.
        fp16: store weights in half precision, which halves the size; computation stays in single.

    Returns:
        The file's SHA-256.

    Raises:
        FacewiseError: PyTorch and ONNX Runtime differ by more than 1e-4 before weights are rounded
            to half precision (the cost of rounding is left to the metrics), or any output is not a
            number.
    """
    import onnx

    # Without gradients, so that speed-ups for training (``Conv``) do not enter the graph.
    module = ServingNetwork(load_checkpoint(config, checkpoint)).eval().requires_grad_(False)
    out.parent.mkdir(parents=True, exist_ok=True)
    size = config.network.size_px
    with warnings.catch_warnings():
        # The newer exporter needs onnxscript and has no advantage for a network of plain layers.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            module.to(memory_format=torch.contiguous_format),
            (torch.zeros(2, size, size, 3, dtype=torch.uint8),),
            str(out),
            input_names=["image"],
            output_names=["ages", "vector"],
            dynamic_axes={"image": {0: "N"}, "ages": {0: "N"}, "vector": {0: "N"}},
            opset_version=OPSET,
            dynamo=False,
        )
    graph = onnx.load(str(out))
    fold_padding(graph, size)
    graph.producer_name, graph.producer_version, graph.doc_string = "facewise", "", ""
    digest = _save(graph, out)
    difference = parity(module, out, digest, crops)
    log.info("%s: within %.1e of PyTorch on %d faces", out.name, difference, len(crops))
    _keep_if(difference <= PARITY_TOLERANCE, out, difference)  # False for NaN
    if fp16:
        store_half(graph)
        digest = _save(graph, out)
        rounded = parity(module, out, digest, crops)
        _keep_if(math.isfinite(rounded), out, rounded)  # weights can overflow float16
        log.info("stored in half precision: within %.1e", rounded)
    return digest


def _keep_if(right: bool, out: Path, difference: float) -> None:
    if not right:
        out.unlink()
        raise FacewiseError(
            f"{out}: differs from PyTorch by {difference:.1e}, so the export is wrong"
        )


def _save(graph: Any, out: Path) -> str:
    """Check and write a graph, and return the file's SHA-256."""
    import onnx

    onnx.checker.check_model(graph)
    onnx.save(graph, str(out))
    return hashlib.sha256(out.read_bytes()).hexdigest()


def parity(module: ServingNetwork, path: Path, digest: str, crops: ImageArray) -> float:
    """Largest difference of any probability between PyTorch and ONNX Runtime; NaN if any is NaN."""
    with torch.inference_mode():
        expected = [output.numpy() for output in module(torch.from_numpy(crops))]
    actual = open_session(path, digest).run(["ages", "vector"], {"image": crops})
    differences = [np.abs(a - e).max() for a, e in zip(actual, expected, strict=True)]
    return float(np.max(differences))  # unlike Python's max, never skips a NaN


def store_half(graph: Any) -> None:
    """Store larger float32 weights as float16, cast back on loading.

    ONNX Runtime folds the casts when it creates a session, so inference is unchanged.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in graph.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < 1024:
            continue
        with np.errstate(over="ignore"):  # ``export_onnx`` detects it afterwards
            half = numpy_helper.to_array(tensor).astype(np.float16)
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    for node in reversed(casts):
        graph.graph.node.insert(0, node)


def write_spec(
    config: TrainConfig,
    onnx_path: Path,
    sha256: str,
    *,
    name: str,
    version: str,
    description: str,
    licence: str,
    data: list[str],
    before: ModelSpec | None = None,
) -> Path:
    """Write the spec beside an ONNX file; evaluation adds figures and calibration later.

    What it added to ``before``, a spec of the same weights, stays, and so does the version, or the
    next calibration would be given the number of an earlier one.
    """
    network = config.network
    template = make_template(network.size_px, *network.framing)
    spec = {
        "kind": SPEC_KIND,
        "name": name,
        "version": before.version if before else version,
        "file": onnx_path.name,
        "sha256": sha256,
        "description": description,
        "input": {
            "size_px": network.size_px,
            **SPEC_FORM["input"],
            "template": [[round(float(v), 3) for v in point] for point in template],
        },
        "output": SPEC_FORM["output"],
        "licence": licence,
        "data": data,
        "figures": dict(before.figures) if before else {},
        "calibration": dict(before.calibration) if before else {},
    }
    path = onnx_path.with_suffix(".json")
    write_json(path, spec)
    return path
