"""Sources behind URLs: web servers, object storage, servers that do not answer."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import re
import socket
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from facewise.batch import globs, storage
from facewise.batch.annotate import annotate
from facewise.batch.job import FILE, ROW, TAR, VIDEO, Item
from facewise.batch.reader import ItemReader
from facewise.batch.sources import list_items
from facewise.batch.watch import Fingerprints, changed
from facewise.batch.work import Annotator
from facewise.data.walk import Skipped
from facewise.errors import ImageNotFoundError, OptionError

from .conftest import AGE, Command, make_table, make_tar, rows_of, write_tar


def listed(*sources: str) -> list[Item]:
    return list(list_items(list(sources), AGE, Skipped(), {}))


class Web(SimpleHTTPRequestHandler):
    """A folder like ``python -m http.server`` serves it: ranges are ignored."""

    def log_message(self, *_: object) -> None:
        pass


class Ranges(Web):
    """A folder as web servers and object storage serve it."""

    def do_GET(self) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if asked is None or not path.is_file():
            super().do_GET()
            return
        data = path.read_bytes()
        start, end = int(asked[1]), int(asked[2]) + 1
        if start >= len(data):
            self.send_error(416)
            return
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{min(end, len(data)) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data[start:end])))
        self.end_headers()
        self.wfile.write(data[start:end])


@contextlib.contextmanager
def served(folder: Path, handler: type[Web]) -> Iterator[str]:
    """Serve a folder on this machine; yields its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.mark.parametrize("handler", [Web, Ranges])
def test_sources_of_web_servers_are_read_and_what_cannot_be_read_says_why(
    handler: type[Web], annotator: Annotator, pictures: Path, tmp_path: Path
) -> None:
    pytest.importorskip("aiohttp")
    faces = sorted((pictures / "faces").glob("*.webp"))[:2]
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, face in zip(("a b.webp", "\N{SNOWMAN}.webp"), faces, strict=True):
        (photos / name).write_bytes(face.read_bytes())
    (photos / "empty.jpg").touch()
    make_tar(tmp_path / "t.tar", faces)
    make_table(tmp_path / "t.parquet", faces)
    (tmp_path / "list.txt").write_text("photos/a b.webp\nphotos/none.webp\n")
    with served(tmp_path, handler) as url:
        folder = listed(f"{url}/photos/")
        assert [item.image_id.removeprefix(f"{url}/photos/") for item in folder] == [
            "%E2%98%83.webp",
            "a%20b.webp",
            "empty.jpg",
        ]
        for same in ("/photos", "/photos/*", "/ph*"):
            assert listed(url + same) == folder
        snowman, space, empty = rows_of(annotator, folder)
        assert empty["error_code"] == "image_empty"
        signed = Item("signed", FILE, f"{url}/photos/a%20b.webp?signature=1")
        first, missing, again = rows_of(annotator, [*listed(f"{url}/list.txt"), signed])
        assert missing["error_code"] == "image_not_found"
        assert "No such file" in missing["error_message"]
        ages = [row["age_years"] for row in (space, first, again)]
        assert ages == ages[:1] * 3
        assert None not in ages
        tar = rows_of(annotator, listed(f"{url}/t.tar"))
        table = rows_of(annotator, listed(f"{url}/t.parquet"))
    expected = [space["age_years"], snowman["age_years"]]
    assert [row["age_years"] for row in table] == expected
    if handler is Ranges:
        assert [row["age_years"] for row in tar] == expected
    else:
        for row in tar:
            assert row["error_code"] == "image_not_found"
            assert "sends whole files only): copy it here" in row["error_message"]


def test_a_query_does_not_hide_what_a_web_address_names(pictures: Path, tmp_path: Path) -> None:
    """As that of a signed address, whose signature may have slashes and wildcards."""
    pytest.importorskip("aiohttp")
    faces = sorted((pictures / "faces").glob("*.webp"))[:2]
    make_tar(tmp_path / "t.tar", faces)
    make_table(tmp_path / "t.parquet", faces)
    pq.write_table(pa.table({"path": ["a b.webp"]}), tmp_path / "paths.parquet")
    (tmp_path / "list.txt").write_text("a b.webp\n")
    (tmp_path / "list.csv").write_text("path\na b.webp\n")
    (tmp_path / "a.webp").write_bytes(faces[0].read_bytes())
    (tmp_path / "a.mp4").touch()
    (tmp_path / "t.tar.gz").touch()
    query, kinds = "?signature=a/b*[c].jpg", list[int]()
    with served(tmp_path, Ranges) as url:
        for path in sorted(tmp_path.glob("[alpt]*.???*")):
            if path.suffix == ".gz":
                with pytest.raises(OptionError, match="compressed"):
                    listed(f"{url}/{path.name}{query}")
                continue
            items = listed(f"{url}/{path.name}{query}")
            kinds += [item.kind for item in items]
            assert listed(f"{url}/{path.name}") == [
                item._replace(
                    **{
                        name: getattr(item, name).replace(query, "")
                        for name in ("image_id", "path")
                    }
                )
                for item in items
            ]
            if path.name == "t.parquet":
                reader = ItemReader(None, max_bytes=10**6)
                assert [reader.read(item) for item in items] == [
                    face.read_bytes() for face in faces
                ]
                reader.close()
        with pytest.raises(OptionError, match="check the URL"):
            listed(f"{url}/none.tar{query}")
        (page,) = listed(f"{url}/{query}")  # not a folder: fsspec joins links to the query
        assert page.kind == FILE
    assert sorted(kinds) == sorted([VIDEO, FILE, FILE, FILE, FILE, ROW, ROW, TAR, TAR])


def test_no_more_of_a_picture_than_may_be_is_read_from_a_server_without_ranges(
    tmp_path: Path,
) -> None:
    pytest.importorskip("aiohttp")
    (tmp_path / "large.jpg").write_bytes(bytes(range(256)) * 100)
    for handler in (Web, Ranges):
        with served(tmp_path, handler) as url:
            assert storage.read_range(f"{url}/large.jpg", 300) == bytes(range(256)) + bytes(
                range(44)
            )
            assert storage.read_range(f"{url}/large.jpg", 30_000) == bytes(range(256)) * 100


def test_a_file_on_a_web_server_without_etags_is_known_by_its_time(tmp_path: Path) -> None:
    """Tars are padded, so that others of about its contents have its size."""
    pytest.importorskip("aiohttp")
    (tmp_path / "t.tar").write_bytes(b"1")
    with served(tmp_path, Ranges) as url:
        system, inner = storage.file_system(f"{url}/t.tar")
        if "Last-Modified" not in system.info(inner):
            pytest.skip("this version of fsspec does not report a file's time")
        before = storage.fingerprint(f"{url}/t.tar")
        assert storage.fingerprint(f"{url}/t.tar") == before
        os.utime(tmp_path / "t.tar", (1, 1))
        assert storage.fingerprint(f"{url}/t.tar") != before


@pytest.mark.parametrize(
    "name", ["a b.jpg", "e[1].jpg", "\N{SNOWMAN} 50%20#1.jpg", "x::y.jpg", "f=1/g?.jpg"]
)
def test_names_in_object_storage_are_taken_as_they_are(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Arrow's driver, which would have URLs percent-encoded."""
    pytest.importorskip("fsspec")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # not asked for a bucket's region
    for bucket in ("s3://photos", "s3://key:secret@photos"):
        system, inner = storage.file_system(f"{bucket}/set/{name}")
        assert inner == f"photos/set/{name}"
        assert storage.with_protocol(f"{bucket}/set", inner) == f"{bucket}/set/{name}"
        assert storage.with_protocol(f"{bucket}/", inner) == f"{bucket}/set/{name}"
        assert storage.with_protocol(f"{bucket}/s*/", inner) == f"{bucket}/set/{name}"
        assert storage.file_system(f"{bucket}/other")[0] is system
        assert storage.file_system(bucket)[1] == "photos"


@pytest.fixture
def object_storage() -> Any:
    """A file system that answers from earlier listings and sends the whole file for a range of no
    bytes, as drivers and servers of object storage do.
    """
    pytest.importorskip("fsspec")
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    class Storage(MemoryFileSystem):  # type: ignore[misc]
        protocol = "listed"
        known: ClassVar[dict[str, Any]] = {}

        @classmethod
        def _strip_protocol(cls, path: str) -> Any:
            return super()._strip_protocol(path.removeprefix("listed:/"))

        def glob(self, path: str, **options: Any) -> Any:
            found = super().glob(path, **options)
            self.known.update(found)
            return found

        def info(self, path: str, **options: Any) -> Any:
            return self.known.get(self._strip_protocol(path)) or super().info(path, **options)

        def invalidate_cache(self, path: str | None = None) -> None:
            self.known.clear()

        def cat_file(self, path: str, start: int, end: int, **options: Any) -> Any:
            first, last = (start, end) if start < end else (None, None)
            return super().cat_file(path, first, last, **options)

    fsspec.register_implementation("listed", Storage, clobber=True)
    return storage.file_system("listed://photos")[0]


def test_a_tar_that_a_glob_found_is_seen_to_change(object_storage: Any, tmp_path: Path) -> None:
    """And not looked up in the glob's listing."""
    for name in ("a.tar", "b.tar"):
        write_tar(tmp_path / name, {"a.jpg": b"abc"})
        object_storage.pipe_file(f"{tmp_path.name}/{name}", (tmp_path / name).read_bytes())
    opened: Fingerprints = {}
    url = f"listed://{tmp_path.name}"
    assert len(list(list_items([f"{url}/*.tar"], AGE, Skipped(), opened))) == 2
    assert changed(opened) == {}
    object_storage.pipe_file(f"{tmp_path.name}/a.tar", b"another")
    object_storage.rm_file(f"{tmp_path.name}/b.tar")
    assert changed(opened) == {f"{url}/a.tar": False, f"{url}/b.tar": True}


def test_of_an_empty_member_of_a_tar_nothing_is_read(object_storage: Any, tmp_path: Path) -> None:
    write_tar(tmp_path / "t.tar", {"a.jpg": b"abc", "empty.jpg": b"", "b.jpg": b"de"})
    object_storage.pipe_file(f"{tmp_path.name}/t.tar", (tmp_path / "t.tar").read_bytes())
    reader = ItemReader(None, max_bytes=1000)
    items = listed(f"listed://{tmp_path.name}/t.tar")
    assert [reader.read(item) for item in items] == [b"abc", b"", b"de"]


def test_marks_of_empty_folders_are_no_files() -> None:
    """As S3's console writes them, and s3fs lists them."""

    class System:
        def find(self, folder: str) -> list[str]:
            return [f"{folder}/a.jpg", f"{folder}/empty.jpg/", f"{folder}/.hidden/b.jpg"]

    assert list(globs.files_below(System(), "photos/set", "photos/set")) == ["photos/set/a.jpg"]


@pytest.mark.parametrize("listing", ["list.txt", "paths.parquet"])
def test_without_the_driver_of_a_lists_urls_nothing_is_begun(listing: str, tmp_path: Path) -> None:
    source, urls = tmp_path / listing, ["a.jpg", "nonsense://bucket/b.jpg"]
    if source.suffix == ".txt":
        source.write_text("\n".join(urls))
    else:
        pq.write_table(pa.table({"path": urls}), source)
    with pytest.raises(OptionError, match="no file system for nonsense://"):
        annotate([str(source)], tmp_path / "t", AGE, workers=1)
    assert not (tmp_path / "t").exists()
    with pytest.raises(OptionError, match="no file system for nonsense://"):
        storage.read_range(urls[1], 10)  # as for a row whose struct names a file


@pytest.mark.parametrize(
    ("url", "module", "package"),
    [
        ("https://x.example/a.jpg", "fsspec.implementations.http", "pip install aiohttp"),
        ("az://bucket/a.jpg", "adlfs", "pip install adlfs"),
        ("nonsense://bucket/a.jpg", "nonsense", "fsspec lists them"),
    ],
)
def test_the_package_of_a_missing_driver_is_named(
    url: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fsspec")
    drivers = importlib.import_module("fsspec.registry")
    monkeypatch.delitem(drivers._registry, url.partition(":")[0], raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(OptionError, match=rf"no file system for .*driver \({package}\)"):
        storage.file_system(url)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # ftplib's own
def test_a_server_that_does_not_answer_is_a_row_and_a_driver_that_went_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fsspec")
    source, out = tmp_path / "list.txt", tmp_path / "t"
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # never listens, so connections are refused
        source.write_text(f"ftp://127.0.0.1:{closed.getsockname()[1]}/a.jpg")
        assert annotate([str(source)], out, AGE, workers=1).errors == {"image_not_found": 1}
    drivers = importlib.import_module("fsspec.registry")  # the module, not fsspec's attribute
    monkeypatch.delitem(drivers._registry, "ftp")
    monkeypatch.setitem(sys.modules, "fsspec.implementations.ftp", None)
    with pytest.raises(OptionError, match="no file system for ftp://"):
        annotate([str(source)], out, AGE, workers=1, retry_errors=True)


def fill(system: Any, folder: str, faces: list[Path], tmp_path: Path) -> None:
    """Write a folder of pictures, a tar, a table and a list to an Arrow file system."""
    make_tar(tmp_path / "t.tar", faces)
    make_table(tmp_path / "t.parquet", faces)
    files = {f"photos/{face.name}": face.read_bytes() for face in faces}
    files |= {"photos/.hidden.webp": b"hidden", "photos/.thumbs/a.webp": b"hidden"}
    files |= {name: (tmp_path / name).read_bytes() for name in ("t.tar", "t.parquet")}
    files["list.txt"] = "\n".join(f"photos/{face.name}" for face in faces).encode()
    for name, data in files.items():
        system.create_dir(f"{folder}/{name}".rpartition("/")[0], recursive=True)
        with system.open_output_stream(f"{folder}/{name}") as file:
            file.write(data)


@pytest.mark.parametrize("protocol", ["memory", "mock"])
def test_every_kind_of_source_is_read_from_urls(
    protocol: str, annotator: Annotator, pictures: Path, tmp_path: Path
) -> None:
    """One of fsspec's own file systems and one that only Arrow has, both in this process."""
    pytest.importorskip("fsspec")
    from pyarrow import fs

    faces = sorted((pictures / "faces").glob("*.webp"))[:2]
    system, inner = storage.file_system(f"{protocol}:///sources")
    on_arrow = system.fs if protocol == "mock" else fs.PyFileSystem(fs.FSSpecHandler(system))
    assert hasattr(system, "fs") == (protocol == "mock")
    fill(on_arrow, inner, faces, tmp_path)
    url = f"{protocol}:///sources"
    opened: dict[str, dict[str, Any]] = {}
    names = ("photos", "t.tar", "t.parquet", "list.txt")
    sources = [f"{url}/{name}" for name in names]
    items = list(list_items(sources, AGE, Skipped(), opened))
    assert [item.kind for item in items] == [FILE, FILE, TAR, TAR, ROW, ROW, FILE, FILE]
    ages = [row["age_years"] for row in rows_of(annotator, items)]
    assert None not in ages
    assert ages == 4 * ages[:2]
    assert list(opened) == sources[1:3], "the list is not read again"
    assert opened == {source: storage.fingerprint(source) for source in opened}
    assert all(about["size"] for about in opened.values())
    globbed = list(list_items([f"{url}/photos/**/*.webp"], AGE, Skipped(), {}))
    assert [item.path.rpartition("/")[2] for item in globbed] == [face.name for face in faces]
    with pytest.raises(OptionError, match="Invalid pattern"):
        list(list_items([f"{url}/photos/**.webp"], AGE, Skipped(), {}))
    with pytest.raises(OptionError, match="check the URL"):
        list(list_items([f"{url}/none"], AGE, Skipped(), {}))
    (gone,) = rows_of(annotator, [Item("gone", FILE, f"{url}/gone.jpg")])
    assert gone["error_code"] == "image_not_found"


def test_a_protocol_that_nobody_knows_says_so() -> None:
    with pytest.raises(OptionError, match="no file system for nonsense://"):
        listed("nonsense://bucket/photos")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # ftplib's own
def test_a_server_that_does_not_answer_ends_the_run_with_1_and_nothing_begun(
    tmp_path: Path, facewise: Command
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # never listens, so connections are refused
        url = f"ftp://127.0.0.1:{closed.getsockname()[1]}/photos"
        done = facewise("annotate", url, "--out", tmp_path / "t")
        with pytest.raises(ImageNotFoundError, match="refused"):
            storage.read_range(url, 10)
    assert done.returncode == 1
    assert "run the same command again; nothing has been begun" in done.stderr
    assert "driver" not in done.stderr
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (
            OSError(
                "When resolving region for bucket 'photos': AWS Error NETWORK_CONNECTION during "
                "HeadBucket operation: curlCode: 6, Could not resolve hostname; Details: Could not "
                "resolve host: photos.s3.us-east-1.amazonaws.com"
            ),
            True,
        ),
        (TimeoutError(errno.ETIMEDOUT, "Connection timed out"), True),
        (OSError("Unable to load libjvm\ndlopen(/usr/lib/jvm/libjvm.so) failed"), False),
        (OSError("Prior attempt to load libhdfs failed"), False),
        (ImportError("Install s3fs to access S3"), False),
        (pa.ArrowInvalid("Unrecognized filesystem type in URI: nonsense://bucket"), False),
    ],
)
def test_errors_of_connecting_that_may_pass_are_told_from_missing_drivers(
    error: Exception, passing: bool
) -> None:
    """Arrow's actual messages without a network and without Java."""
    assert storage.may_pass(error) == passing


def test_servers_are_told_apart_by_what_their_urls_say() -> None:
    pytest.importorskip("fsspec")
    first, inner = storage.file_system("webhdfs://one.invalid:1/photos/a::b.jpg")
    assert inner == "/photos/a::b.jpg"
    assert first is storage.file_system("webhdfs://one.invalid:1/photos")[0]
    assert "one.invalid:1" in first.url
    for other in ("webhdfs://two.invalid:1/photos", "webhdfs://one.invalid:2/photos"):
        assert storage.file_system(other)[0].url != first.url


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # ftplib's own
def test_a_url_without_the_host_that_its_protocol_needs_says_so() -> None:
    with pytest.raises(OptionError, match=r"no file system for ftp://.*host"):
        listed("ftp:///photos")
