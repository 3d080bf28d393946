"""Folders and the links between them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from facewise.data.walk import walk


def found(folder: Path) -> list[str]:
    return sorted(walk(str(folder), lambda name: None))


def link_all(folder: Path, count: int) -> None:
    """Make folders with one picture each that all link to each other."""
    for number in range(count):
        (folder / f"d{number}").mkdir(parents=True)
        (folder / f"d{number}" / f"{number}.jpg").touch()
    for one in range(count):
        for other in set(range(count)) - {one}:
            (folder / f"d{one}" / f"l{other}").symlink_to(folder / f"d{other}")


def test_folders_that_link_to_each_other_are_not_walked_in_every_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each folder is found directly and once per link to it, in any order on disk."""
    link_all(tmp_path / "in", 12)
    names = found(tmp_path / "in")
    own = {f"d{one}/{one}.jpg" for one in range(12)}
    assert set(names) == own | {
        f"d{one}/l{other}/{other}.jpg" for one in range(12) for other in range(12) if one != other
    }
    assert len(names) == 12 * 12
    # From another folder, the pictures behind at least two links appear only once.
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "first").symlink_to(tmp_path / "in" / "d0")
    linked = found(tmp_path / "to")
    assert linked == sorted(
        ["first/0.jpg", *(f"first/l{other}/{other}.jpg" for other in range(1, 12))]
    )
    scandir = os.scandir

    class Reversed(list[os.DirEntry[str]]):
        def __init__(self, path: str) -> None:
            with scandir(path) as entries:
                super().__init__(sorted(entries, key=lambda entry: entry.name, reverse=True))

        def __enter__(self) -> Reversed:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Reversed)
    assert found(tmp_path / "in") == names
    assert found(tmp_path / "to") == linked


def test_two_links_to_a_folder_are_two_names_of_it_and_no_folder_is_lost(tmp_path: Path) -> None:
    """Folders reached by links within a linked folder appear once."""
    for name in ("store/a/deep/1.jpg", "far/2.jpg", "farther/3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "set").mkdir()
    for name in ("x", "y"):
        (tmp_path / "set" / name).symlink_to(tmp_path / "store" / "a")
    (tmp_path / "store" / "a" / "far").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "farther").symlink_to(tmp_path / "farther")
    (tmp_path / "far" / "back").symlink_to(tmp_path / "store")
    assert found(tmp_path / "set") == [
        "x/deep/1.jpg",
        "x/far/2.jpg",
        "x/far/farther/3.jpg",
        "y/deep/1.jpg",
    ]
