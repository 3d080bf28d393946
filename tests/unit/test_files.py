"""Files are written completely or not at all."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from facewise.files import replacing, write_json, write_text


def test_a_file_is_replaced_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("old")
    with replacing(path, "w", encoding="utf-8") as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for there in (False, True):
        with pytest.raises(UnicodeEncodeError), replacing(path, "w", encoding="utf-8") as file:
            file.writelines(["half", "\udce9"])
        assert [p.read_text() for p in tmp_path.iterdir()] == ["old"] * there
        path.write_text("old")


def test_texts_and_json_are_whole_or_not_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write_json(path, {"caf\xe9": "\udce9"})
    assert path.read_text(encoding="utf-8") == '{\n "caf\xe9": "\\udce9"\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, [float("nan")])
    assert json.loads(path.read_text(encoding="utf-8")) == {"caf\xe9": "\udce9"}
    earlier = tmp_path / "earlier"
    earlier.hardlink_to(path)
    write_text(path, "a\n")
    assert path.read_bytes() == b"a\n"
    assert earlier.read_text(encoding="utf-8") != "a\n", "it was written over"


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_goes_on_being_one(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    path, link = tmp_path / "elsewhere" / "a.csv", tmp_path / "b.csv"
    link.symlink_to(path)
    with replacing(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert path.read_bytes() == b"new"
