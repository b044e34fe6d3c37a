import os

import pytest

from edgewise.errors import InvalidInput
from edgewise.measure.cores import choose, physical_cores, reserved


@pytest.mark.parametrize(
    ("threads", "available", "siblings", "expected"),
    [
        (1, (0, 1), {}, (1,)),
        (2, (0, 1), {}, (0, 1)),
        (2, (0, 1, 2, 3), {0: 0, 2: 0, 1: 1, 3: 1}, (2, 3)),
        (2, (0, 1, 2, 3), {0: 0, 1: 0, 2: 2, 3: 2}, (1, 3)),  # not both hyper-threads of one core
        (3, (0, 1, 2, 3), {0: 0, 1: 0, 2: 2, 3: 2}, (1, 2, 3)),
        (2, (4, 7, 9), {}, (7, 9)),
    ],
)
def test_choice(threads, available, siblings, expected):
    assert choose(threads, available, siblings) == expected


@pytest.mark.parametrize("threads", [0, 3])
def test_more_threads_than_cores(threads):
    with pytest.raises(InvalidInput, match="may run on 2"):
        choose(threads, (0, 1), {})


def test_topology(tmp_path):
    for core, text in {0: "0-1", 1: "0-1", 2: "2,6"}.items():
        folder = tmp_path / f"sys/devices/system/cpu/cpu{core}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(text + "\n")
    assert physical_cores(tmp_path) == {0: 0, 1: 0, 2: 2}
    assert physical_cores(tmp_path / "none") == {}


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system has no affinity")
def test_the_caller_keeps_off_and_comes_back():
    before = os.sched_getaffinity(0)
    with reserved(1) as cores:
        inside = os.sched_getaffinity(0)
    assert inside == (before - set(cores) or before)
    assert os.sched_getaffinity(0) == before
    with pytest.raises(KeyboardInterrupt), reserved(1):
        raise KeyboardInterrupt
    assert os.sched_getaffinity(0) == before
