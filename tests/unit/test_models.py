"""Specs and hashes: a damaged weight file is never used."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facewise.analyzer import Analyzer
from facewise.attributes import AttributeModel, as_distributions
from facewise.errors import ModelError, ModelIntegrityError, ModelNotFoundError, OptionError
from facewise.labels import VECTOR_LABELS
from facewise.models import (
    SPEC_FORM,
    WEIGHTS_FOLDER,
    import_onnxruntime,
    list_models,
    load_spec,
    read_spec,
)

TEMPLATE = load_spec().template.tolist()
FORM: dict[str, object] = {**SPEC_FORM["input"], "size_px": 192, "template": TEMPLATE}
PHOTO = Path(__file__).parents[1] / "data" / "astronaut.jpg"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    spec = load_spec()
    shutil.copy(spec.path, tmp_path / "copy.json")
    shutil.copy(spec.weights_path, tmp_path / spec.file)
    return tmp_path / "copy.json"


def test_every_shipped_model_opens_and_keeps_the_contract() -> None:
    for spec in list_models():
        assert spec.size_bytes < 25_000_000
        size = spec.size_px
        crops = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
        model = AttributeModel(spec, threads=1)
        ages, vector = model.predict(crops)
        assert (ages.shape, vector.shape) == ((3, 120), (3, 19))
        assert str(ages.dtype) == str(vector.dtype) == "float32"
        np.testing.assert_allclose(ages.sum(-1), 1, atol=1e-4)
        np.testing.assert_allclose(ages.reshape(3, 12, 10).sum(-1), vector[:, :12], atol=1e-5)
        many, _ = model.predict(np.concatenate([crops] * 11))  # more than fit in one inference
        np.testing.assert_allclose(many, np.concatenate([ages] * 11), atol=1e-5)
        assert model.predict(crops[:0])[1].shape == (0, 19)
        with pytest.raises(ValueError, match="crops must be"):
            model.predict(crops[:, :-1])


def change_network(spec: Path, change: Callable[[Any], None]) -> None:
    """Change the network of a copied spec, and the hash in it."""
    onnx = pytest.importorskip("onnx")
    weights = spec.parent / load_spec().file
    network = onnx.load(weights)
    change(network.graph)
    onnx.save(network, weights)
    raw = json.loads(spec.read_text())
    raw["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    spec.write_text(json.dumps(raw))


def rename(graph: Any, before: str, after: str) -> None:
    """Rename a tensor within a graph, not among its inputs and outputs."""
    for node in graph.node:
        node.input[:] = [after if name == before else name for name in node.input]
        node.output[:] = [after if name == before else name for name in node.output]


def test_answers_that_are_not_numbers_are_an_error_and_never_a_label(copied: Path) -> None:
    def spoil(graph: Any) -> None:
        import onnx

        biases = [tensor for tensor in graph.initializer if len(tensor.dims) == 1]
        last = onnx.numpy_helper.to_array(biases[-1])
        nan = np.full_like(last, np.nan)
        biases[-1].CopyFrom(onnx.numpy_helper.from_array(nan, biases[-1].name))

    change_network(copied, spoil)
    with pytest.raises(ModelError, match=r"not numbers.*CPUExecutionProvider"):
        Analyzer(model=copied, threads=1).analyze(PHOTO)


@pytest.mark.parametrize("half_to_the_end", [False, True])
def test_answers_in_half_precision_need_no_temperature(copied: Path, half_to_the_end: bool) -> None:
    """Rounded so, the 120 probabilities of the years miss 1 by more than a Distribution may."""

    def round_to_half(graph: Any) -> None:
        import onnx

        half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
        for output in graph.output:
            name = output.name
            rename(graph, name, f"{name}.single")
            steps = [(f"{name}.single", f"{name}.half", half), (f"{name}.half", name, single)]
            if half_to_the_end:
                steps = [(f"{name}.single", name, half)]
                output.type.tensor_type.elem_type = half
            for given, made, kind in steps:
                graph.node.append(onnx.helper.make_node("Cast", [given], [made], to=kind))

    raw = json.loads(copied.read_text())
    del raw["calibration"]
    copied.write_text(json.dumps(raw))
    (whole,) = Analyzer(model=copied, threads=1).analyze(PHOTO)
    change_network(copied, round_to_half)
    (half,) = Analyzer(model=copied, threads=1).analyze(PHOTO)
    assert half.vector.dtype == np.float32
    np.testing.assert_allclose(half.vector, whole.vector, atol=1e-3)


def test_answers_that_are_no_probabilities_are_an_error(copied: Path) -> None:
    """As where the softmax was left out."""

    def double(graph: Any) -> None:
        import onnx

        rename(graph, "vector", "half of it")
        graph.node.append(onnx.helper.make_node("Add", ["half of it"] * 2, ["vector"]))

    change_network(copied, double)
    with pytest.raises(ModelError, match=r"no probabilities.* sum to 2, .*softmax"):
        Analyzer(model=copied, threads=1).analyze(PHOTO)


def test_only_sums_that_single_precision_does_not_explain_are_mended() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(19), 4).astype(np.float32)
    p[1] *= np.float32(1.001)
    mended = as_distributions(p)
    assert mended.dtype == np.float32
    np.testing.assert_array_equal(mended[[0, 2, 3]], p[[0, 2, 3]])
    np.testing.assert_allclose(mended[1], p[1] / 1.001, rtol=1e-6)
    for wrong in (p * 1.02, p - 0.001, np.concatenate([-p, 2 * p], axis=1)):
        with pytest.raises(ValueError, match=r"they sum to|some are negative"):
            as_distributions(wrong)


def one_at_a_time(graph: Any) -> None:
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def other_output(graph: Any) -> None:
    rename(graph, "ages", "years")
    graph.output[0].name = "years"


def other_input(graph: Any) -> None:
    rename(graph, "image", "picture")
    graph.input[0].name = "picture"


def another_input(graph: Any) -> None:
    graph.input.append(graph.output[0])
    graph.input[1].name = "masks"


def swapped_outputs(graph: Any) -> None:
    rename(graph, "ages", "other")
    rename(graph, "vector", "ages")
    rename(graph, "other", "vector")
    for output in graph.output:
        output.type.tensor_type.ClearField("shape")


def floats(graph: Any) -> None:
    graph.input[0].type.tensor_type.elem_type = 1


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (one_at_a_time, r"takes image tensor\(uint8\) \[1, 192, 192, 3\]"),
        (other_output, "gives years .*, vector"),
        (other_input, "takes picture"),
        (another_input, "takes image .*, masks"),
        (swapped_outputs, r"ages tensor\(float\) \['N', 19\]"),
        (floats, r"takes image tensor\(float\)"),
    ],
)
def test_a_network_of_another_form_is_refused_when_it_is_opened(
    copied: Path, change: Callable[[Any], None], what: str
) -> None:
    """Not at the first face, or at the first photo of two."""
    change_network(copied, change)
    needed = r"must take image tensor\(uint8\) \['N', 192, 192, 3\]"
    with pytest.raises(ModelIntegrityError, match=f"{what}.*{needed}"):
        AttributeModel(read_spec(copied), threads=1)


def test_the_default_by_name_version_and_path() -> None:
    spec = load_spec()
    assert load_spec(spec.name).sha256 == spec.sha256
    assert load_spec(f"{spec.name}@{spec.version}").sha256 == spec.sha256
    assert load_spec(spec.path).sha256 == spec.sha256
    assert load_spec("small").name == load_spec("facewise-small").name == "facewise-small"
    with pytest.raises(ModelNotFoundError, match="check the path"):
        load_spec("/nowhere/spec.json")


def test_weights_or_a_folder_in_place_of_the_spec_say_which_to_name(copied: Path) -> None:
    folder = copied.parent
    (folder / "notes.json").write_text('{"kind": "notes"}')
    weights = folder / load_spec().file
    copied.rename(weights.with_suffix(".json"))
    for path in (weights, folder):
        with pytest.raises(ModelNotFoundError) as error:
            load_spec(path)
        assert f"name the model's spec, {weights.with_suffix('.json')}" in str(error.value)
        assert "notes.json" not in str(error.value)
    weights.with_suffix(".json").unlink()
    for path, where in (
        (weights, "beside it"),
        (folder, "in it"),
        (folder / "gone.onnx", "beside"),
    ):
        with pytest.raises(ModelNotFoundError, match=rf"a \.json file {where}.* there is none"):
            load_spec(path)


def test_a_provider_that_falls_back_is_no_silent_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As happens with onnxruntime-gpu when the CUDA libraries are missing."""
    ort = import_onnxruntime()
    there = ort.get_available_providers()
    name = "CUDAExecutionProvider"
    if name in there:
        pytest.skip("this ONNX Runtime has CUDA")
    monkeypatch.setattr(ort, "get_available_providers", lambda: [name, *there])
    spec = load_spec()
    with (
        pytest.warns(UserWarning, match=name),
        pytest.raises(OptionError, match="fell back to CPUExecutionProvider"),
    ):
        AttributeModel(spec, providers=[(name, {"device_id": 0}), "CPUExecutionProvider"])


def test_a_hash_may_be_in_capitals(copied: Path) -> None:
    """As Windows writes them; what repeats it stays as it was."""
    raw = json.loads(copied.read_text())
    copied.write_text(json.dumps(raw | {"sha256": raw["sha256"].upper()}))
    model = AttributeModel(read_spec(copied), threads=1)
    assert model.spec.sha256 == load_spec().sha256


def test_a_relative_path_holds_when_the_working_folder_changes(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copied.parent)
    pickled = pickle.dumps(Analyzer(copied.name, threads=1))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    analyzer = pickle.loads(pickled)
    assert analyzer.spec.size_bytes > 0
    assert len(analyzer.analyze(PHOTO)) == 1


def test_a_changed_byte_is_noticed(copied: Path) -> None:
    weights = copied.parent / read_spec(copied).file
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ModelIntegrityError, match=r"damaged.* put the spec's own weights beside"):
        AttributeModel(read_spec(copied))
    weights.unlink()
    with pytest.raises(ModelIntegrityError, match="reinstall facewise, or put the spec's own"):
        AttributeModel(read_spec(copied))


def test_a_file_that_is_no_model(copied: Path) -> None:
    raw = json.loads(copied.read_text())
    (copied.parent / raw["file"]).write_bytes(b"not ONNX")
    raw["sha256"] = "0c8bd28f4a7f1e9b7fbd6e1a7dfc9c1c"
    copied.write_text(json.dumps(raw))
    with pytest.raises(ModelIntegrityError):
        AttributeModel(read_spec(copied))


@pytest.mark.parametrize("field", ["name", "sha256", "input", "licence", "data"])
def test_a_spec_without_a_field(copied: Path, field: str) -> None:
    raw = json.loads(copied.read_text())
    del raw[field]
    copied.write_text(json.dumps(raw))
    with pytest.raises(ModelIntegrityError, match=field):
        read_spec(copied)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"data": "UTKFace"}, "data must be a list"),
        ({"version": 5.7}, "version must be text, not 5.7"),
        ({"name": None}, "name must be text, not None"),
        ({"sha256": 12}, "sha256 must be text"),
        ({"file": 12}, "file must be text"),
        ({"input": FORM | {"size_px": "192"}}, "input.size_px must be a whole number"),
        (
            {"input": FORM | {"color_order": "bgr"}},
            "input.color_order is 'bgr', .* only 'rgb': convert",
        ),
        ({"input": FORM | {"layout": "NCHW"}}, "input.layout is 'NCHW'"),
        ({"input": FORM | {"dtype": "float32"}}, "input.dtype is 'float32'"),
        ({"output": {"ages_years": [0, 119]}}, r"output.ages_years is \[0, 119\]"),
        ({"input": FORM | {"template": TEMPLATE[:4]}}, "template"),
        ({"input": FORM | {"template": [[9, 9]] * 5}}, "template"),
        ({"input": FORM | {"template": [[9, float("nan")]] * 5}}, "template"),
        ({"input": FORM | {"template": [[x / 192, y / 192] for x, y in TEMPLATE]}}, "pixels"),
        ({"input": FORM | {"template": [[191 - x, y] for x, y in TEMPLATE]}}, "mirrored"),
        ({"input": FORM | {"template": [[y, x] for x, y in TEMPLATE]}}, "mirrored"),
    ],
)
def test_a_spec_whose_numbers_cannot_be_meant(
    copied: Path, change: dict[str, object], what: str
) -> None:
    copied.write_text(json.dumps(json.loads(copied.read_text()) | change))
    with pytest.raises(ModelIntegrityError, match=what):
        read_spec(copied)


def test_a_size_that_is_not_the_networks(copied: Path) -> None:
    raw = json.loads(copied.read_text())
    raw["input"]["size_px"] = 160
    copied.write_text(json.dumps(raw))
    with pytest.raises(ModelIntegrityError, match=r"takes .* 192, 192.* must take .* 160, 160"):
        AttributeModel(read_spec(copied))


def test_all_weights_together_stay_small() -> None:
    total = sum(path.stat().st_size for path in WEIGHTS_FOLDER.glob("*.onnx"))
    assert total < 30_000_000


def test_padding_folds_into_convolutions() -> None:
    """A graph with separate Pad nodes, as PyTorch exports it, answers the same without them."""
    onnx = pytest.importorskip("onnx")
    from facewise.training.simplify import fold_padding

    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(4, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["plain"], to=floats),
        helper.make_node("Transpose", ["plain"], ["x"], perm=[0, 3, 1, 2]),
        helper.make_node("Add", ["zeros", "below"], ["widths"]),
        helper.make_node("Pad", ["x", "widths"], ["padded"]),
        helper.make_node("Conv", ["padded", "w"], ["y"], strides=[2, 2], pads=[0, 0, 0, 0]),
    ]
    constants = {
        "zeros": np.zeros(8, np.int64),
        "below": np.array([0, 0, 0, 0, 0, 0, 1, 2], np.int64),
        "w": weights,
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["N", 16, 16, 3])],
        [helper.make_tensor_value_info("y", floats, ["N", 4, None, None])],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    picture = rng.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)

    def answer() -> np.ndarray:
        ort = import_onnxruntime()
        session = ort.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        return np.asarray(session.run(None, {"image": picture})[0])

    before = answer()
    assert fold_padding(model, 16) == 1
    assert [node.op_type for node in model.graph.node] == ["Cast", "Transpose", "Conv"]
    np.testing.assert_allclose(answer(), before, atol=1e-3)
    assert fold_padding(model, 16) == 0


def test_a_spec_with_outputs_in_another_order(copied: Path) -> None:
    raw = json.loads(copied.read_text(encoding="utf-8"))
    raw["output"]["vector"] = [*VECTOR_LABELS[1:], VECTOR_LABELS[0]]
    copied.write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(ModelIntegrityError, match=r"output\.vector is \['11-20', .* only \['1-10'"):
        read_spec(copied)


def test_every_shipped_spec_names_its_outputs() -> None:
    for spec in list_models():
        raw = json.loads(spec.path.read_text(encoding="utf-8"))
        assert tuple(raw["output"]["vector"]) == VECTOR_LABELS
