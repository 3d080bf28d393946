"""Settings: sources, their order, and the policy on ethnicity."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from facewise.cli.serve import serve
from facewise.errors import ImageTooLargeError, OptionError
from facewise.server.app import make_analyzer
from facewise.server.inference import Inference
from facewise.server.run import place_of, run
from facewise.settings import Settings, is_loopback, load_settings

ALL = ("age", "gender", "ethnicity")
WITHOUT = ("age", "gender")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("example.org", False),
        ("127.0.0.1.example.org", False),
        ("", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
    assert Settings(host=host).served_attributes == (ALL if loopback else WITHOUT)


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("127.0.0.1", "http://127.0.0.1:80/faces/"),
        ("192.168.1.5", "http://192.168.1.5:80/faces/"),
        ("::1", "http://[::1]:80/faces/"),
        ("0.0.0.0", "http://127.0.0.1:80/faces/ (and every address of this machine)"),
        ("::", "http://[::1]:80/faces/ (and every address of this machine)"),
    ],
)
def test_what_is_announced_can_be_opened(host: str, said: str) -> None:
    assert place_of(host, 80, "/faces") == said


def test_a_proxy_in_front_publishes_a_loopback_server() -> None:
    assert Settings(root_path="/faces").served_attributes == WITHOUT
    assert Settings(trusted_proxies=("127.0.0.1",)).served_attributes == WITHOUT


def test_a_crowd_is_cut_short_where_others_are_expected() -> None:
    assert Settings().served_max_faces is None
    assert Settings(host="0.0.0.0").served_max_faces == 500
    assert Settings(trusted_proxies=("127.0.0.1",)).served_max_faces == 500
    for host in ("127.0.0.1", "0.0.0.0"):
        assert Settings(host=host, max_faces=7000).served_max_faces == 7000


def test_the_operator_can_name_ethnicity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEWISE_HOST", "0.0.0.0")
    assert "ethnicity is off because 0.0.0.0" in load_settings().attributes_reason
    monkeypatch.setenv("FACEWISE_ATTRIBUTES", "ethnicity, age,gender")
    settings = load_settings()
    assert settings.served_attributes == ALL
    assert "named by the operator" in settings.attributes_reason


def test_arguments_beat_the_environment_and_that_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "facewise.toml"
    file.write_text('port = 1111\nqueue = 7\nthreads = 3\nattributes = ["age"]\n')
    monkeypatch.setenv("FACEWISE_CONFIG", str(file))
    monkeypatch.setenv("FACEWISE_PORT", "2222")
    monkeypatch.setenv("FACEWISE_QUEUE", "8")
    settings = load_settings(port=3333, host=None)
    assert (settings.port, settings.queue, settings.threads) == (3333, 8, 3)
    assert settings.attributes == ("age",)


def test_a_key_of_the_file_that_is_called_like_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--settings`` lists the variables."""
    file = tmp_path / "facewise.toml"
    monkeypatch.setenv("FACEWISE_CONFIG", str(file))
    file.write_text("FACEWISE_MAX_BYTES = 5000000\n")
    with pytest.raises(OptionError, match=r"^FACEWISE_MAX_BYTES is .*: did you mean max_bytes\?$"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("FACEWISE_PORT", "70000", "FACEWISE_PORT"),
        ("FACEWISE_ATTRIBUTES", "age,height", "some of age, gender, ethnicity, not height"),
        ("FACEWISE_ATTRIBUTES", ",", "some of age, gender, ethnicity"),
        ("FACEWISE_THREADS", "none", "FACEWISE_THREADS"),
        ("FACEWISE_MAX_BYTES", "20MB", "MAX_BYTES.: '20MB' is not a number: write digits alone"),
        ("FACEWISE_MIN_FACE_PX", "20px", "'20px' is not a number: write digits alone"),
        ("FACEWISE_ROOT_PATH", "faces", "ROOT_PATH.: 'faces' is no prefix: .* as in /faces"),
        ("FACEWISE_ROOT_PATH", "/faces/", "'/faces/' is no prefix: begin it with /, end it witho"),
        ("FACEWISE_API_KEY", "", "choose a key of 8 characters or more"),
        ("FACEWISE_API_KEY", "short12", "FACEWISE_API_KEY.: choose a key of 8 characters or more"),
        ("FACEWISE_API_KEY", "correct horse,", "a comma separates two keys"),
        ("FACEWISE_API_KEY", "correct horse,short12", "a comma separates two keys"),
        ("FACEWISE_API_KEY", "short12 \n", "choose a key of 8 characters or more"),
        ("FACEWISE_UPLOAD_MEMORY_BYTES", "64000000", "so that the largest body fits"),
        ("FACEWISE_CONFIG", "/nowhere/at/all.toml", "no such file"),
        (
            "FACEWISE_APIKEY",
            "open sesame",
            "FACEWISE_APIKEY is not a setting: did you mean FACEWISE_API_KEY",
        ),
        ("facewise_apikey", "open sesame", "did you mean FACEWISE_API_KEY"),
        ("FACEWISE_COLOUR_OF_PAGE", "red", "correct or remove it"),
        ("FACEWISE_CORS_ORIGINS", "https://a.example,b.example", "CORS_ORIGINS.: 'b.example'"),
        ("FACEWISE_CORS_ORIGINS", "https://a.example/app", "write scheme and host"),
        ("FACEWISE_CORS_ORIGINS", "https://*.example", "write scheme and host"),
        ("FACEWISE_CORS_ORIGINS", "https://müller.example", "write scheme and host"),
        ("FACEWISE_CORS_ORIGINS", "https://a.example:port", "write scheme and host"),
        ("FACEWISE_CORS_ORIGINS", "https://", "write scheme and host"),
        ("FACEWISE_CORS_ORIGINS", "null", "write scheme and host"),
        ("FACEWISE_TRUSTED_PROXIES", "10.0.0.1,nginx", "TRUSTED_PROXIES.: 'nginx' would never"),
        ("FACEWISE_TRUSTED_PROXIES", "localhost", "by address or network"),
        ("FACEWISE_TRUSTED_PROXIES", "10.0.0.0/33", "by address or network"),
        ("FACEWISE_TRUSTED_PROXIES", "172.30.0.5/24", "bits after the prefix are 0"),
        ("FACEWISE_TRUSTED_PROXIES", "10.0.0.1:8000", "by address or network"),
        ("FACEWISE_TRUSTED_PROXIES", "*,10.0.0.1", "write . alone"),
    ],
)
def test_bad_values_say_which(
    name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(OptionError, match=words.replace("/", ".")):
        load_settings()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://app.example/", ("https://app.example",)),
        ("https://App.Example:443, http://[::1]:80/", ("https://app.example", "http://[::1]")),
        (
            "http://localhost:3000,https://a.example:80",
            ("http://localhost:3000", "https://a.example:80"),
        ),
        (
            "capacitor://localhost,chrome-extension://abc",
            ("capacitor://localhost", "chrome-extension://abc"),
        ),
        ("*", ("*",)),
        ("", ()),
    ],
)
def test_origins_are_kept_as_browsers_send_them(
    given: str, kept: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEWISE_CORS_ORIGINS", given)
    assert load_settings().cors_origins == kept


@pytest.mark.parametrize(
    "given", ["172.30.0.0/24", "10.0.0.0/8,127.0.0.1", "::1,fd00::/8,fe80::1%eth0", "*", ""]
)
def test_what_the_server_can_believe_is_taken_as_proxies(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEWISE_TRUSTED_PROXIES", given)
    assert ",".join(load_settings().trusted_proxies) == given


def test_a_file_with_unknown_keys_or_bad_toml_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "facewise.toml"
    monkeypatch.setenv("FACEWISE_CONFIG", str(file))
    for text, words in (
        ("prot = 1\n", "prot is not a setting: did you mean port"),
        ("port = = 1\n", "FACEWISE_CONFIG="),
    ):
        file.write_text(text)
        with pytest.raises(OptionError, match=words):
            load_settings()


@pytest.mark.parametrize(
    "name", ["FACEWISE_DATA", "FACEWISE_SERVICE_PORT_HTTP", "FACEWISE_PORT_8000_TCP_ADDR"]
)
def test_variables_of_other_parts_are_left_alone(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "10.0.0.1")
    load_settings()


@pytest.mark.parametrize("linked", ["tcp://10.96.1.2:8000", "udp://10.96.1.2:53"])
def test_the_port_that_kubernetes_sets_is_not_where_to_listen(
    linked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service named facewise sets FACEWISE_PORT to its own address, in every pod."""
    monkeypatch.setenv("FACEWISE_PORT", linked)
    assert load_settings().port == 8000
    file = tmp_path / "facewise.toml"
    file.write_text("port = 1111\n")
    monkeypatch.setenv("FACEWISE_CONFIG", str(file))
    assert load_settings().port == 1111


def test_an_empty_variable_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files write ``${NAME:-}``, and then the file or the default counts."""
    file = tmp_path / "facewise.toml"
    file.write_text("queue = 7\n")
    monkeypatch.setenv("FACEWISE_CONFIG", str(file))
    for name in set(Settings.model_fields) - {"api_key"}:
        monkeypatch.setenv(f"FACEWISE_{name.upper()}", "")
    assert load_settings() == Settings.model_construct(**{**_defaults(), "queue": 7})


def _defaults() -> dict[str, Any]:
    fields = Settings.model_fields.items()
    return {name: field.get_default(call_default_factory=True) for name, field in fields}


def test_an_address_that_is_elsewhere_is_not_blamed_on_the_port() -> None:
    for host in ("192.0.2.1", "no such host"):
        with pytest.raises(OptionError, match=r"not an address of this machine .* --host"):
            run(Settings(host=host, port=0), print)


def test_providers_reach_the_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEWISE_PROVIDERS", "FancyProvider, CPUExecutionProvider")
    with pytest.raises(OptionError, match="no FancyProvider; it has"):
        make_analyzer(load_settings())


def test_options_reach_the_analyzer(pictures: Path) -> None:
    settings = Settings(
        model="small",
        attributes=("age",),
        coverage=0.8,
        min_face_px=60,
        max_faces=3,
        max_bytes=100_000,
        max_pixels=200_000,
    )
    analyzer = make_analyzer(settings)
    assert analyzer.spec.name == "facewise-small"
    assert (analyzer.attributes, analyzer.coverage) == (("age",), 0.8)
    assert (analyzer.detector.min_face_px, analyzer.detector.max_faces) == (60, 3)
    with pytest.raises(ImageTooLargeError, match="bytes"):
        analyzer.load(bytes(100_001))
    with pytest.raises(ImageTooLargeError, match="pixels"):
        analyzer.load(pictures / "astronaut.jpg")


def test_limits_on_photos_do_not_stop_the_start() -> None:
    settings = Settings(threads=1, max_bytes=1_000, max_pixels=1_000)
    Inference(make_analyzer(settings), settings).warm_up()


def test_the_command_lists_every_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FACEWISE_PROT", "8001")  # must not stop the search for the right name
    with pytest.raises(OptionError, match="did you mean FACEWISE_PORT"):
        serve(list_settings=True)
    lines = capsys.readouterr().out.splitlines()
    defaults = {line.split()[0]: line.split()[1] for line in lines}
    assert list(defaults) == [f"FACEWISE_{name.upper()}" for name in Settings.model_fields]
    assert defaults["FACEWISE_PORT"] == "8000"
    assert defaults["FACEWISE_UPLOAD_BYTES_PER_SECOND"] == "25000"
    assert defaults["FACEWISE_API_KEY"] == defaults["FACEWISE_ROOT_PATH"] == "none"
    said = {line.split()[0]: line for line in lines}
    assert "a quarter if published" in said["FACEWISE_UPLOADS_PER_CLIENT"]
    assert "at least 8 characters" in said["FACEWISE_API_KEY"]


def test_the_command_lists_the_values_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "facewise.toml"
    config.write_text('queue = 7\nhost = "10.0.0.0"\napi_key = "sesame 8"\n')
    # Set here, so that what the command sets is undone.
    monkeypatch.setenv("FACEWISE_CONFIG", str(config))
    monkeypatch.setenv("FACEWISE_CORS_ORIGINS", "https://a.example, https://b.example")
    serve(list_settings=True, config=config, port=8123)
    out = capsys.readouterr().out
    said = {line.split()[0]: line for line in out.splitlines()}
    values = {name: line.split()[1] for name, line in said.items()}
    assert values["FACEWISE_QUEUE"] == "7"
    assert "(default: 32)" in said["FACEWISE_QUEUE"]
    assert values["FACEWISE_PORT"] == "8123"
    assert values["FACEWISE_HOST"] == "10.0.0.0"
    assert values["FACEWISE_CORS_ORIGINS"] == "https://a.example,https://b.example"
    assert "default:" not in said["FACEWISE_UPLOADS"]
    assert set(values["FACEWISE_API_KEY"]) == {"*"}
    assert "sesame" not in out


def test_the_key_is_not_printed() -> None:
    assert "sesame 8" not in repr(Settings(api_key=SecretStr("sesame 8")))


def test_a_server_without_its_form_parser_does_not_start() -> None:
    """Starlette would miss python-multipart at the first form only, and answer 500."""
    code = (
        "import sys; sys.modules['python_multipart'] = sys.modules['multipart'] = None; "
        "from facewise.cli import main; sys.argv = ['facewise', 'serve', '--settings']; main()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.endswith("the server needs an extra: pip install 'facewise[server]'\n")
