"""What the API answers when all is well."""

from __future__ import annotations

import gzip
import io
import json
import re
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from facewise import Analyzer
from facewise.errors import OptionError
from facewise.models import list_models
from facewise.mtcnn import MTCNN
from facewise.server.cards import card_page
from facewise.server.pages import device_files
from facewise.types import Face, Photo

from .conftest import Serve
from .pictures import every_format

pytestmark = pytest.mark.anyio


async def test_multipart_raw_and_the_library_agree(
    serve: Serve, portrait: bytes, analyzer: Analyzer
) -> None:
    expected = [p.to_dict(vector=True, years=True) for p in analyzer.analyze(portrait)]
    async with serve() as running:
        url = "/v1/analyze?vector=true&years=true"
        multipart = await running.client.post(url, files={"file": ("a.jpg", portrait)})
        raw = [
            # `requests` with an open file, or a Blob of unknown type, sends no content type.
            await running.client.post(url, content=portrait, headers=headers)
            for headers in (
                {"Content-Type": "image/jpeg"},
                {"Content-Type": "application/octet-stream"},
                {},
            )
        ]
    assert "content-type" not in raw[-1].request.headers
    for answer in (multipart, *raw):
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert body["faces"] == json.loads(json.dumps(expected))
        assert len(body["faces"]) == 1
        assert (body["width_px"], body["height_px"]) == (512, 512)
        assert body["model"] == analyzer.spec.info.to_dict()
        assert body["request_id"] == answer.headers["x-request-id"]
        assert len(body["faces"][0]["vector"]) == 19
        times = body["timings_ms"]
        stages = ("queue", "decode", "detect", "align", "attributes", "calibrate")
        assert set(times) == {*stages, "total"}
        assert all(ms >= 0 for ms in times.values())
        assert sum(times[stage] for stage in stages) == pytest.approx(times["total"], rel=0.2)


async def test_vector_and_years_come_on_request_only(serve: Serve, portrait: bytes) -> None:
    async with serve() as running:
        answer = await running.client.post("/v1/analyze", files={"file": portrait})
    face = answer.json()["faces"][0]
    assert "vector" not in face
    assert "probabilities" not in face["age"]


async def test_a_request_can_ask_for_less(serve: Serve, portrait: bytes) -> None:
    async with serve() as running:
        answer = await running.client.post(
            "/v1/analyze?attributes=gender,age&vector=true", files={"file": portrait}
        )
        refused = await running.client.post(
            "/v1/analyze?attributes=gender,height", files={"file": portrait}
        )
    face = answer.json()["faces"][0]
    assert answer.json()["attributes"] == ["age", "gender"]
    assert "ethnicity" not in face
    assert face["vector"][14:] == [None] * 5
    assert None not in face["vector"][:14]
    assert refused.status_code == 422
    assert refused.json()["code"] == "invalid_option"


async def test_a_request_can_ask_for_another_coverage(
    serve: Serve, portrait: bytes, analyzer: Analyzer
) -> None:
    """The answer is that of such an analyzer; the next request gets the server's default again."""
    files = {"file": portrait}
    async with serve() as running:
        wide = (await running.client.post("/v1/analyze?coverage=0.95", files=files)).json()
        float32 = "/v1/analyze/batch?coverage=0.800000011920929"  # 0.8 as a NumPy float32
        batch = (await running.client.post(float32, files=files)).json()
        usual = (await running.client.post("/v1/analyze", files=files)).json()
        refused = [
            await running.client.post(f"/v1/analyze?coverage={value}", files=files)
            for value in ("0.5", "nan", "-inf", "much")
        ]
    for answer, face, coverage in (
        (wide, wide["faces"][0], 0.95),
        (batch, batch["photos"][0]["faces"][0], 0.8),
        (usual, usual["faces"][0], 0.9),
    ):
        [expected] = Analyzer(threads=1, coverage=coverage).analyze(portrait)
        assert answer["coverage"] == face["coverage"] == coverage
        assert face["age"]["interval_years"] == list(expected.age_interval_years or ())
    assert analyzer.coverage == 0.9
    for answer in refused:
        assert answer.status_code == 422
        assert answer.json()["code"] == "invalid_option"
        assert "coverage" in answer.json()["detail"]


async def test_no_face_is_a_good_answer(serve: Serve) -> None:
    from PIL import Image

    from .pictures import encoded

    blank = encoded(Image.new("RGB", (300, 200), (90, 140, 90)))
    async with serve() as running:
        answer = await running.client.post("/v1/analyze", files={"file": blank})
    assert answer.status_code == 200
    assert answer.json()["faces"] == []


async def test_batch_keeps_order_and_survives_bad_photos(
    serve: Serve, portrait: bytes, analyzer: Analyzer, pictures: Path
) -> None:
    other = sorted((pictures / "faces").glob("*.webp"))[0].read_bytes()
    items = [b"no picture", portrait, other, b"", portrait[:2000]]
    async with serve() as running:
        answer = await running.client.post(
            "/v1/analyze/batch", files=[("files", ("x", item)) for item in items]
        )
    assert answer.status_code == 200
    photos = answer.json()["photos"]
    assert [photo["index"] for photo in photos] == [0, 1, 2, 3, 4]
    codes = [photo.get("error", {}).get("code") for photo in photos]
    assert codes == ["not_an_image", None, None, "image_empty", "image_corrupt"]
    for index, item in ((1, portrait), (2, other)):
        singles = analyzer.analyze(item)
        assert len(photos[index]["faces"]) == len(singles)
        for face, single in zip(photos[index]["faces"], singles, strict=True):
            np.testing.assert_allclose(face["bbox"], single.face.bbox, atol=0.02)
            assert single.age_years is not None
            assert face["age"]["years"] == pytest.approx(single.age_years, abs=0.02)


async def test_a_batchs_limit_is_for_all_of_its_photos(serve: Serve, portrait: bytes) -> None:
    """The allowance for the form's own bytes is no room for photos."""
    async with serve(max_batch_bytes=2 * len(portrait)) as running:
        post = running.client.post
        for last, status in ((portrait, 200), (portrait + b"\0", 413)):
            files = [("files", ("x", data)) for data in (portrait, last)]
            answer = await post("/v1/analyze/batch", files=files)
            assert answer.status_code == status
        assert answer.json()["code"] == "batch_too_large"


async def test_batch_never_holds_more_pixels_than_one_photo_may_have(
    serve: Serve, portrait: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups are cut at ``max_pixels``; the answer is the same."""
    items = [("files", ("x", portrait))] * 5
    groups: list[int] = []
    detect = MTCNN.detect_many

    def detect_and_count(self: MTCNN, photos: list[Photo]) -> list[tuple[Face, ...]]:
        groups.append(len(photos))
        return detect(self, photos)

    async with serve(max_pixels=2 * 512 * 512) as running:
        monkeypatch.setattr(MTCNN, "detect_many", detect_and_count)
        answer = await running.client.post("/v1/analyze/batch", files=items)
    assert groups == [2, 2, 1]
    faces = [photo["faces"][0]["bbox"] for photo in answer.json()["photos"]]
    assert len(faces) == 5
    np.testing.assert_allclose(faces, [faces[0]] * 5, atol=0.02)


async def test_models_cards_and_pages(serve: Serve, analyzer: Analyzer) -> None:
    name = analyzer.spec.name
    async with serve() as running:
        about = (await running.client.get("/v1/models")).json()
        card = await running.client.get(f"/v1/models/{name}/card")
        pinned = await running.client.get(f"/v1/models/{name}@{analyzer.spec.version}/card")
        page = await running.client.get(
            "/v1/models/default/card", headers={"Accept": "text/html,*/*"}
        )
        wrong = await running.client.get(f"/v1/models/{name}@0.0.0-none/card")
        small = await running.client.get("/v1/models/small/card")
        full = await running.client.get("/v1/models/facewise-small/card")
        docs = await running.client.get("/docs")
        index = await running.client.get("/")
        head = await running.client.head("/")
    serving = [model for model in about["models"] if model["serving"]]
    assert [model["sha256"] for model in serving] == [analyzer.spec.sha256]
    assert about["live_attributes"] == ["age", "gender"]
    assert card.headers["content-type"].startswith("text/markdown")
    assert card.text == pinned.text
    assert small.status_code == 200
    assert small.text == full.text != card.text
    assert page.headers["content-type"].startswith("text/html")
    assert "<h1>" in page.text
    assert wrong.status_code == 404
    assert wrong.json()["code"] == "model_not_found"
    assert docs.status_code == index.status_code == head.status_code == 200


async def test_it_reads_the_formats_that_it_names(
    serve: Serve, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HEIC needs an extra and is listed only where that is installed."""
    heif = pytest.importorskip("pillow_heif", reason="pip install 'facewise[heif]'")
    samples = {kind.lower(): data for kind, data in every_format(pictures).items()}
    out = io.BytesIO()
    heif.from_pillow(Image.open(io.BytesIO(samples["png"]))).save(out, format="HEIF")
    samples["heic"] = out.getvalue()
    async with serve() as running:
        get, post = running.client.get, running.client.post
        named = (await get("/v1/models")).json()["formats"]
        assert sorted(map(str.lower, named)) == sorted(samples)
        for data in samples.values():
            assert (await post("/v1/analyze", files={"file": data})).status_code == 200
        monkeypatch.setitem(sys.modules, "pillow_heif", None)
        fewer = (await get("/v1/models")).json()["formats"]
        refused = await post("/v1/analyze", files={"file": samples["heic"]})
    assert set(named) - set(fewer) == {"HEIC"}
    assert refused.status_code == 415
    assert refused.json()["detail"] == "HEIC is not supported: save the picture as JPEG."


async def test_operations(serve: Serve, portrait: bytes) -> None:
    async with serve() as running:
        assert (await running.client.get("/healthz")).json() == {"status": "ok"}
        assert (await running.client.get("/readyz")).json() == {"status": "ready"}
        await running.client.post("/v1/analyze", files={"file": portrait})
        await running.client.post("/v1/analyze", files={"file": b"no"})
        text = (await running.client.get("/metrics")).text
    assert 'facewise_photos_total{outcome="ok"} 1.0' in text
    assert 'facewise_photos_total{outcome="not_an_image"} 1.0' in text
    assert "facewise_faces_total 1.0" in text
    assert 'facewise_stage_seconds_count{stage="detect"} 1.0' in text
    assert 'handler="/v1/analyze"' in text
    assert "facewise_waiting 0.0" in text


def _third_party(text: str) -> list[str]:
    return [word for word in ("http://", "https://", 'src="//', "@import") if word in text]


async def test_metrics_take_no_label_from_a_client(serve: Serve) -> None:
    """Labels are kept forever: a client that invents them would fill the memory."""
    async with serve(root_path="/faces") as running:
        for method, path in (
            ("INVENTED", "/v1/models"),
            ("GET", "/invented"),
            ("GET", "/v1/models/invented/card"),
            ("GET", "/v1/models/invented/card/"),
            ("GET", "/faces/static/invented/"),
        ):
            answer = await running.client.request(method, path)
            assert answer.status_code in (404, 405)
            assert answer.headers["content-type"] == "application/problem+json"
        text = (await running.client.get("/metrics")).text
    assert "nvented" not in text.lower()
    assert 'handler="/v1/models/{name}/card",method="GET",status="4xx"' in text


async def test_head_is_get_without_the_body(serve: Serve) -> None:
    paths = ("/", "/docs", "/healthz", "/readyz", "/v1/models", "/static/app.js", "/nothing")
    async with serve() as running:
        for path in paths:
            get, head = await running.client.get(path), await running.client.head(path)
            assert head.status_code == get.status_code == (404 if path == "/nothing" else 200)
            assert head.headers["content-type"] == get.headers["content-type"]
            assert head.content == b""
        assert (await running.client.head("/v1/analyze")).headers["allow"] == "POST"


async def test_files_of_the_device_go_out_packed(serve: Serve, tmp_path: Path) -> None:
    """gzip halves the download; clients that do not accept it get the plain file."""
    plain = b"\0asm" + bytes(50_000)
    packed = gzip.compress(plain)
    (tmp_path / "device.json").write_text("{}")
    (tmp_path / "big.wasm").write_bytes(plain)
    (tmp_path / "big.wasm.gz").write_bytes(packed)
    url = "/static/device/big.wasm"
    async with serve(device_folder=tmp_path) as running:

        async def get(accepted: str, method: str = "GET", **more: str) -> httpx.Response:
            headers = {"Accept-Encoding": accepted, **more}
            answer = await running.client.request(method, url, headers=headers)
            assert answer.headers["vary"] == "Accept-Encoding"
            assert answer.headers["cache-control"] == "no-cache"
            return answer

        answers = {
            accepted: await get(accepted)
            for accepted in ("gzip, deflate, br", "br;q=1, GZip;q=0.5", "identity", "gzip;q=0", "")
        }
        for accepted, answer in answers.items():
            is_packed = accepted.startswith(("gzip,", "br"))
            assert answer.content == plain  # the client unpacks it
            assert answer.headers["content-type"] == "application/wasm"
            assert ("content-encoding" in answer.headers) == is_packed
            assert int(answer.headers["content-length"]) == len(packed if is_packed else plain)
        tags = {answer.headers["etag"] for answer in answers.values()}
        assert len(tags) == 2, "one address, two representations"
        for accepted in ("gzip, deflate, br", "identity"):
            tag = answers[accepted].headers["etag"]
            kept = await get(accepted, **{"If-None-Match": tag})
            assert (kept.status_code, kept.content) == (304, b"")
            other = "identity" if accepted != "identity" else "gzip"
            assert (await get(other, **{"If-None-Match": tag})).status_code == 200
        head = await get("gzip", "HEAD")
        assert (head.headers["content-encoding"], head.content) == ("gzip", b"")
        assert int(head.headers["content-length"]) == len(packed)
        alone = await running.client.get("/static/device/device.json")
        assert "vary" not in alone.headers


async def test_the_device_has_the_model_that_serves_or_is_not_offered(
    serve: Serve, tmp_path: Path, analyzer: Analyzer, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise ticking the box would silently change the model."""
    spec = analyzer.spec
    same = {"name": spec.name, "version": spec.version}
    for text, offered in (
        (json.dumps({"model": same}), True),
        (json.dumps({"model": {**same, "version": "0.1"}}), False),
        (json.dumps({"model": {**same, "name": "facewise-other"}}), False),
        ("{}", False),
        ("[]", False),
        ("no JSON", False),
    ):
        (tmp_path / "device.json").write_text(text)
        caplog.clear()
        async with serve(device_folder=tmp_path) as running:
            assert (await running.client.get("/v1/models")).json()["on_device"] is offered
        said = [line for line in caplog.messages if "on-device analysis is not offered" in line]
        assert [f"this server runs {spec.name}@{spec.version}" in line for line in said] == (
            [] if offered else [True]
        )


async def test_a_named_folder_holds_the_device_files_or_is_refused(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole page that ``make page`` writes will do; the package may come without any files."""
    files = tmp_path / "static/device"
    files.mkdir(parents=True)
    with pytest.raises(OptionError, match=r"FACEWISE_DEVICE_FOLDER\): .* has no device.json"):
        device_files(tmp_path)
    monkeypatch.setattr("facewise.server.pages.DEVICE", files)
    assert device_files(None) is None
    (files / "device.json").write_text("{}")
    assert device_files(None) == files
    for folder in (files, tmp_path):
        async with serve(device_folder=folder) as running:
            assert (await running.client.get("/static/device/device.json")).text == "{}"


@pytest.mark.parametrize("path", ["/", "/docs", "/static/app.js"])
async def test_what_the_browser_has_is_not_sent_again(path: str, serve: Serve) -> None:
    """Range requests, even malformed ones, are answered with the whole file."""
    async with serve() as running:
        first = await running.client.get(path)
        assert first.headers["cache-control"] == "no-cache"
        tag = {"If-None-Match": first.headers["etag"]}
        kept = await running.client.get(path, headers=tag)
        assert (kept.status_code, kept.content) == (304, b"")
        for asked in ("bytes=1-3", "bytes=abc", "bytes=99999999-"):
            whole = await running.client.get(path, headers={"Range": asked})
            assert (whole.status_code, whole.content) == (200, first.content)
            assert whole.headers["accept-ranges"] == "none"


async def test_cards_are_kept_and_go_out_packed(serve: Serve) -> None:
    """Markdown or HTML, packed or not: four representations at one address."""
    tags = []
    async with serve() as running:
        for kind in ("text/markdown", "text/html"):
            sizes = []
            for accepted in ("gzip", "identity"):
                headers = {"Accept": kind, "Accept-Encoding": accepted}
                card = await running.client.get("/v1/models/default/card", headers=headers)
                assert card.headers["content-type"] == f"{kind}; charset=utf-8"
                assert card.headers["cache-control"] == "no-cache"
                assert card.headers["vary"] == "Accept, Accept-Encoding"
                sizes.append(int(card.headers["content-length"]))
                tags.append(card.headers["etag"])
                headers["If-None-Match"] = f'"other", W/{tags[-1]}'
                kept = await running.client.get("/v1/models/default/card", headers=headers)
                assert (kept.status_code, kept.content) == (304, b"")
            assert sizes[0] < sizes[1] / 3
    assert len(set(tags)) == 4


def test_a_card_can_be_found_ones_way_in() -> None:
    """Ids are unique, the sections are listed, and each table is named after a heading."""
    for spec in list_models():
        page = card_page(spec)
        ids = re.findall(r'<h[234] id="([\w-]+)">', page)
        assert len(ids) == len(set(ids)) == len(re.findall("<h[234]", page)) > 3
        before, nav, rest = page.partition('<nav aria-label="Sections">')
        assert "</h1>\n<p>" in before, "what the model is comes first"
        assert "<h2" not in before
        listed = nav + rest.partition("</nav>")[0]
        links = re.findall(r'<a href="#([\w-]+)">([^<]+)</a>', listed)
        assert links == re.findall(r'<h[23] id="([\w-]+)">([^<]+)</h', page)
        below = re.findall(r"</a>\n<ul>\n<li>", listed)
        assert len(below) == len(re.findall("</h2>(?:(?!</h2>).)*?</h3>", page, re.DOTALL)) > 0
        assert '<a class="skip" href="#main">' in page
        assert page.count('id="main"') == 1
        tables = re.findall("<table.*>", page)
        assert tables
        for table in tables:
            match = re.fullmatch(r'<table tabindex="0" aria-labelledby="([\w-]+)">', table)
            assert match is not None, table
            assert match[1] in ids


async def test_pages_name_no_other_host(serve: Serve) -> None:
    """No script, style, font or picture comes from elsewhere."""
    from facewise.server.pages import PAGE

    for path in PAGE.rglob("*"):
        # `make page` puts a library there whose messages contain addresses; that none of them is
        # requested is checked in tests/browser/test_device.py.
        if "device" not in path.parts and path.suffix in (".html", ".css", ".js"):
            text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
            assert not _third_party(text), path.name
            assert "style=" not in text, f"{path.name}: the CSP forbids inline styles"
            assert "onclick=" not in text, path.name


async def test_security_headers_everywhere(serve: Serve) -> None:
    async with serve() as running:
        answers: list[httpx.Response] = [
            await running.client.get(path)
            for path in ("/", "/static/app.js", "/v1/models", "/nothing", "/metrics", "/static/")
        ]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy.replace("'wasm-unsafe-eval'", "")  # for WebAssembly only
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "server" not in answer.headers
    assert answers[-1].status_code == 404, "directories are not listed"


async def test_cors_only_where_named(serve: Serve) -> None:
    ask = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    async with serve() as running:
        closed = await running.client.options("/v1/analyze", headers=ask)
    async with serve(cors_origins=("https://a.example",)) as running:
        opened = await running.client.options("/v1/analyze", headers=ask)
        other = await running.client.options(
            "/v1/analyze", headers={**ask, "Origin": "https://b.example"}
        )
        refused = await running.client.post("/v1/analyze", headers={"Origin": ask["Origin"]})
    assert "access-control-allow-origin" not in closed.headers
    assert (opened.status_code, other.status_code, other.content) == (204, 204, b"")
    # Errors can be read there too, including when to retry.
    assert refused.status_code == 400
    assert refused.headers["access-control-allow-origin"] == "https://a.example"
    assert "Retry-After" in refused.headers["access-control-expose-headers"]
    assert opened.headers["access-control-allow-origin"] == "https://a.example"
    assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize("prefix", ["", "/faces"])
async def test_an_address_may_end_with_a_slash(prefix: str, serve: Serve, portrait: bytes) -> None:
    """Answered in place: after a redirect, not every client would send the photo again."""
    files = {"file": portrait}
    async with serve(root_path=prefix, cors_origins=("https://a.example",)) as running:
        for start in {prefix, ""}:
            one = await running.client.post(f"{start}/v1/analyze/?years=true", files=files)
            batch = await running.client.post(f"{start}/v1/analyze/batch/", files=files)
            models = await running.client.get(f"{start}/v1/models/")
            assert "probabilities" in one.json()["faces"][0]["age"]
            assert len(batch.json()["photos"]) == 1
            assert models.json()["models"]
        other = await running.client.post(
            "/v1/analyze/", files=files, headers={"Origin": "https://a.example"}
        )
        metrics = (await running.client.get("/metrics")).text
    assert other.headers["access-control-allow-origin"] == "https://a.example"
    assert 'handler="/v1/analyze"' in metrics
    assert 'handler="/v1/analyze/"' not in metrics


async def test_behind_a_prefix(serve: Serve, portrait: bytes) -> None:
    """The page uses relative addresses; the contract and problems carry the prefix."""
    async with serve(root_path="/faces", attributes=("age",)) as running:
        contract = (await running.client.get("/openapi.json")).json()
        problem = (await running.client.get("/nothing")).json()
        index = (await running.client.get("/")).text
        stripped = await running.client.get("/static/app.js")
        kept = await running.client.get("/faces/static/app.js")
        bare = await running.client.get("/faces")
        follow = await running.client.get("/faces", follow_redirects=True)
        answer = await running.client.post("/faces/v1/analyze", files={"file": portrait})
    assert stripped.status_code == kept.status_code == answer.status_code == 200
    assert (bare.status_code, bare.headers["location"]) == (308, "/faces/")
    assert bare.headers["x-content-type-options"] == "nosniff"
    assert follow.text == index
    assert contract["servers"] == [{"url": "/faces"}]
    assert problem["type"] == "/faces/docs#not_found"
    assert 'src="/' not in index
    assert 'href="/' not in index
