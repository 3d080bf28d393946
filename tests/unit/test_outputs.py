"""The rule by which commands overwrite files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from facewise.cli.outputs import Outputs
from facewise.errors import OptionError


@pytest.mark.parametrize("name", ["file", "link", "hard", "gone/../file"])
def test_a_file_is_known_by_any_of_its_names(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    os.link(tmp_path / "file", tmp_path / "hard")
    with pytest.raises(OptionError, match="is an input, and would be overwritten: choose another"):
        Outputs("--out", [tmp_path / "file"]).add(tmp_path / name, lambda _: True)
    outputs = Outputs("--out")
    outputs.add(tmp_path / "file", lambda _: True)
    with pytest.raises(OptionError, match="would be written twice: choose another --out"):
        outputs.add(tmp_path / name, lambda _: True)


def test_a_file_that_is_not_there_yet_is_known_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    outputs = Outputs("--out", [None, 0])
    outputs.add(tmp_path / "a", lambda _: False)
    outputs.add(tmp_path / "b", lambda _: False)
    with pytest.raises(OptionError, match="would be written twice"):
        outputs.add(tmp_path / "link" / "a", lambda _: False)
