"""Control groups of emulated devices, in a fake tree of either version."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewise.devices import cpu, probe
from edgewise.testing.emulate import cgroups

TOP = "sys/fs/cgroup"


def fake(root: Path, files: dict[str, str]) -> Path:
    for name, content in {"proc/meminfo": "MemTotal: 4000000 kB\n", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.fixture
def v1(tmp_path: Path) -> Path:
    """The controllers apart, and a v2 tree without any of them beside. The process stands in a group of its own."""
    groups = ("cpu,cpuacct", "memory", "memory/session", "memory/session/7", "unified")
    files = {f"{TOP}/{group}/cgroup.procs": "" for group in groups}
    files |= {f"{TOP}/unified/cgroup.controllers": "hugetlb\n", f"{TOP}/unified/cgroup.subtree_control": "\n"}
    return fake(tmp_path, {"proc/self/cgroup": "4:memory:/session/7\n2:cpu,cpuacct:/\n0::/\n", **files})


@pytest.fixture
def v2(tmp_path: Path) -> Path:
    """One tree, in which memory is not handed down yet."""
    groups = ("", "user.slice/", "user.slice/session-2.scope/")
    files = {f"{TOP}/{group}cgroup.procs": "" for group in groups}
    files |= {f"{TOP}/{group}cgroup.controllers": "cpuset cpu io memory pids\n" for group in groups}
    files |= {f"{TOP}/cgroup.subtree_control": "cpu io\n"}
    return fake(tmp_path, {"proc/self/cgroup": "0::/user.slice/session-2.scope\n", **files})


def test_v1_groups_stand_at_the_top_of_each_controller(v1: Path) -> None:
    top = v1 / TOP
    assert cgroups.tops(v1) == {"cpu": top / "cpu,cpuacct", "memory": top / "memory"}
    assert cgroups.obstacle(v1) is None
    folders = cgroups.make("ew1x0", cpu=0.25, memory_bytes=256_000_000, root=v1)
    assert folders == (top / "cpu,cpuacct/ew1x0", top / "memory/ew1x0")
    assert (folders[0] / "cpu.cfs_period_us").read_text() == "5000"
    assert (folders[0] / "cpu.cfs_quota_us").read_text() == "1250"
    assert (folders[1] / "memory.limit_in_bytes").read_text() == "256000000"
    assert not (folders[1] / "memory.memsw.limit_in_bytes").exists()  # no swap accounting: not every kernel has it


def test_v1_memory_and_swap_are_held_together(v1: Path) -> None:
    folder = v1 / TOP / "memory/ew1x0"
    folder.mkdir()
    (folder / "memory.memsw.limit_in_bytes").write_text("-1")
    cgroups.limit_memory(folder, 64_000_000)
    assert (folder / "memory.memsw.limit_in_bytes").read_text() == "64000000"


def test_v2_has_one_group_and_hands_down_what_it_lacks(v2: Path) -> None:
    top = v2 / TOP
    assert cgroups.tops(v2) == {"cpu": top, "memory": top}
    assert cgroups.obstacle(v2) is None
    assert (top / "cgroup.subtree_control").read_text() == "+memory"  # cpu was handed down already
    (top / "cgroup.subtree_control").write_text("cpu memory")
    (folder,) = cgroups.make("ew1x0", cpu=0.5, memory_bytes=64_000_000, root=v2)
    assert (folder / "cpu.max").read_text() == "2500 5000"
    assert (folder / "memory.max").read_text() == "64000000"
    assert not (folder / "memory.swap.max").exists()
    (folder / "memory.swap.max").write_text("max")
    cgroups.limit_memory(folder, 64_000_000)
    assert (folder / "memory.swap.max").read_text() == "0"


def test_v1_limits_are_seen_inside(v1: Path) -> None:
    cgroups.make("ew1x0", cpu=0.25, memory_bytes=256_000_000, root=v1)
    fake(v1, {"proc/self/cgroup": "4:memory:/ew1x0\n2:cpu,cpuacct:/ew1x0\n0::/\n"})
    assert cpu.quota(v1) == 0.25
    assert probe.memory(v1) == 256_000_000


def test_v2_limits_are_seen_inside(v2: Path) -> None:
    cgroups.make("ew1x0", cpu=0.25, memory_bytes=256_000_000, root=v2)
    fake(v2, {"proc/self/cgroup": "0::/ew1x0\n"})
    assert cpu.quota(v2) == 0.25
    assert probe.memory(v2) == 256_000_000


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2, 0.25, 1.0, 1.5])
def test_quotas_that_the_kernel_takes(v1: Path, share: float) -> None:
    """At least 1 ms of quota, at most 1 s of period; 5 ms of it wherever that goes."""
    folder = v1 / TOP / "cpu,cpuacct/ew1x0"
    folder.mkdir()
    cgroups.limit_cpu(folder, share)
    period, quota = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("period", "quota"))
    assert quota >= 1000
    assert period == (5000 if share >= 0.2 else round(1000 / share))
    assert quota / period == pytest.approx(share, rel=1e-3)


def test_what_is_lacking_is_said(tmp_path: Path) -> None:
    fake(tmp_path, {"proc/self/cgroup": "0::/\n", f"{TOP}/cgroup.procs": "", f"{TOP}/cgroup.controllers": "cpu io"})
    assert str(cgroups.obstacle(tmp_path)).startswith("no control groups for memory are mounted under")


def test_kills_for_memory_are_counted(tmp_path: Path) -> None:
    cpu_group, memory = tmp_path / "cpu", tmp_path / "memory"
    fake(tmp_path, {"cpu/cpu.max": "max", "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"})
    assert cgroups.memory_kills((cpu_group, memory)) == 3
    fake(tmp_path, {"cpu/memory.events": "max 12\noom 1\noom_kill 1\n"})
    assert cgroups.memory_kills((cpu_group,)) == 1
    assert cgroups.memory_kills((tmp_path / "nothing",)) == 0
