"""Progress: how fast and how long, on standard error alone."""

from __future__ import annotations

import pytest

from facewise.cli.streams import say
from facewise.progress import counted_progress, track


def test_lines_say_how_fast_it_goes_and_how_long_it_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 1000.0
    monkeypatch.setattr("facewise.progress.time.monotonic", lambda: now)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    said: list[str] = []
    times = ((1000.0, 500), (1005.0, 600), (1010.0, 700), (1400.0, 800), (1410.0, 10_000))
    with counted_progress("image", "images", say) as show:
        for now, done in times:  # noqa: B007
            show(done, 10_000)
            said.append(capsys.readouterr().err.removeprefix("facewise: ").strip())
    assert said == [
        "500 of 10,000 images, 0.0/s",
        "",  # too soon after the last
        "700 of 10,000 images, 20.0/s, 0:07:45 left",  # 500 were done at the start
        "800 of 10,000 images, 0.8/s, 3:24:27 left",  # a mean over all the time
        "10,000 of 10,000 images, 23.2/s",
    ]


def test_a_terminal_has_a_bar_with_count_and_speed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with counted_progress("image", "images", say) as show:
        for done in (500, 600, 10_000):
            show(done, 10_000)
    streams = capsys.readouterr()
    assert streams.out == ""
    assert "10000/10000" in streams.err
    assert "images/s" in streams.err
    assert "0.0 images/s" not in streams.err.splitlines()[-1]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_is_drawn_on_standard_error_if_that_is_a_terminal(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    assert list(track(iter("abc"), "letters", 3)) == ["a", "b", "c"]
    streams = capsys.readouterr()
    assert streams.out == ""
    assert ("letters" in streams.err) == terminal
