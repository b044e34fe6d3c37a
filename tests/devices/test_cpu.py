import os

import pytest

from edgewise.devices import cpu

X86 = """processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8481C
cpu MHz\t\t: 2000.5
flags\t\t: fpu avx2 fma avx512f avx512_vnni avx512_bf16 amx_bf16 amx_tile amx_int8

processor\t: 1
model name\t: another
flags\t\t: fpu avx2"""
PI = """processor\t: 0
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU part\t: 0xd08

Model\t\t: Raspberry Pi 4 Model B Rev 1.4"""


def test_x86(tree):
    root = tree({"proc/cpuinfo": X86})
    assert cpu.name(root) == "Intel(R) Xeon(R) Platinum 8481C"
    assert cpu.isa(root) == ("fma", "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16")


def test_arm(tree):
    root = tree({"proc/cpuinfo": PI})
    assert cpu.name(root) == "Raspberry Pi 4 Model B Rev 1.4 (Cortex-A72)"
    assert cpu.isa(root) == ("asimd",)


def test_a_system_without_proc(tmp_path):
    assert cpu.isa(tmp_path) == ()
    assert cpu.name(tmp_path)
    assert cpu.quota(tmp_path) is None
    assert cpu.cores(tmp_path) == len(cpu.affinity())


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"proc/self/cgroup": "0::/user/app", "sys/fs/cgroup/user/app/cpu.max": "50000 100000"}, 0.5),
        ({"proc/self/cgroup": "0::/user/app", "sys/fs/cgroup/user/app/cpu.max": "max 100000"}, None),
        # a limit above binds too, and the tightest one counts
        (
            {
                "proc/self/cgroup": "0::/user/app",
                "sys/fs/cgroup/user/cpu.max": "20000 100000",
                "sys/fs/cgroup/user/app/cpu.max": "50000 100000",
            },
            0.2,
        ),
        # in a container the path is the host's and isn't there
        ({"proc/self/cgroup": "0::/docker/4711", "sys/fs/cgroup/cpu.max": "150000 100000"}, 1.5),
        (
            {
                "proc/self/cgroup": "4:memory:/\n3:cpu,cpuacct:/box",
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "25000",
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "100000",
            },
            0.25,
        ),
        (
            {"proc/self/cgroup": "1:cpu:/", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
            None,
        ),
    ],
)
def test_quota(tree, files, quota):
    assert cpu.quota(tree(files)) == quota


@pytest.mark.parametrize(("share", "cores"), [("10000", 1), ("100000", 1), ("150000", 2), ("9900000", 4)])
def test_cores_are_affinity_cut_by_quota(tree, monkeypatch, share, cores):
    monkeypatch.setattr(cpu, "affinity", lambda: (0, 1, 2, 3))
    root = tree({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": f"{share} 100000"})
    assert cpu.cores(root) == cores


def test_affinity_without_the_system_call(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert cpu.affinity() == tuple(range(os.cpu_count()))
