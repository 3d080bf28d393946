"""Resources of the machine, as a container sees them."""

from __future__ import annotations

from pathlib import Path

import pytest

from facewise.machine import _quota_cores, cores


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "10000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu.max": "not numbers"}, None),
    ],
)
def test_a_quota_is_rounded_up_to_cores(
    files: dict[str, str], count: int | None, tmp_path: Path
) -> None:
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(f"{text}\n")
    assert _quota_cores(tmp_path) == count


def test_a_quota_limits_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facewise.machine.CGROUP", tmp_path)
    unlimited = cores()
    for quota_us, count in (("max", unlimited), ("9000", 1), ("1000000000", unlimited)):
        (tmp_path / "cpu.max").write_text(f"{quota_us} 100000\n")
        assert cores() == count
