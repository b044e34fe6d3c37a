"""Real measuring processes: what they answer, and how they end."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from edgewise import backends
from edgewise.errors import InvalidInput, InvalidModel, MeasurementFailed
from edgewise.measure import Subject, compare, profile, race
from edgewise.measure.process import Process
from edgewise.testing import graphs
from edgewise.types import Execution


@pytest.fixture(scope="module")
def mlp():
    model, inputs = graphs.mlp(batch=1)
    return model.SerializeToString(), inputs


def subject(mlp, name, **options):
    return Subject(mlp[0], Execution(name, options=options))


@pytest.mark.parametrize("name", backends.taking())
def test_loads_runs_and_ends(mlp, name):
    with Process() as process:
        loaded = process.load(subject(mlp, name), mlp[1])
        assert loaded.milliseconds > 0
        assert loaded.version == backends.get(name).version()
        assert process.first() > 0
        assert process.block(5) > 0
        timed = process.sample(0.01, 20, 50)
        assert timed.calls >= len(timed.samples_ms) >= 20
        assert 100_000 < process.memory() < 1_000_000_000
        pid = process.pid
    assert not psutil.pid_exists(pid)


def test_runs_on_its_cores_only(mlp):
    core = max(os.sched_getaffinity(0))
    with Process([core]) as process:
        process.load(subject(mlp, "onnxruntime"), mlp[1])
        process.first()
        for thread in psutil.Process(process.pid).threads():
            assert os.sched_getaffinity(thread.id) == {core}


def test_peak_memory_is_above_idle(mlp, faulty):
    with Process() as process:
        process.load(subject(mlp, faulty, megabytes="64"), mlp[1])
        before = process.memory()
        process.first()
        after = process.memory()
    assert before < 16 << 20
    assert 60 << 20 < after < 90 << 20


@pytest.mark.parametrize(
    ("options", "words"), [({"die": "1"}, "exit code 7.*\n.*\n.*the engine's last words"), ({"raise": "1"}, "a bug in the engine")]
)
def test_a_death_is_told_with_its_last_words(mlp, faulty, options, words):
    with Process() as process:
        process.load(subject(mlp, faulty, **options), mlp[1])
        with pytest.raises(MeasurementFailed, match=f"(?s)died at 'first'.*{words}"):
            process.first()


def test_a_hang_is_stopped(mlp, faulty):
    with Process(limit_s=3) as process:
        process.load(subject(mlp, faulty, hang="1", after="2"), mlp[1])
        process.first()
        with pytest.raises(MeasurementFailed, match="'block' took over 3 s"):
            process.block(50)
        assert not psutil.pid_exists(process.pid)


def test_being_killed_is_told(mlp, faulty):
    with Process() as process:
        process.load(subject(mlp, faulty), mlp[1])
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(MeasurementFailed, match="signal 9; it may have run out of memory"):
            process.block(50)


def test_errors_on_purpose_keep_their_class_and_the_process_lives(mlp, faulty):
    with Process() as process:
        with pytest.raises(InvalidModel, match="refused"):
            process.load(subject(mlp, faulty, refuse="1"), mlp[1])
        with pytest.raises(InvalidInput, match="shape"):
            process.load(subject(mlp, faulty), {"x": mlp[1]["x"][:, :3]})
        process.load(subject(mlp, faulty), mlp[1])
        assert process.first() > 0


def test_an_error_of_the_caller_ends_the_process(mlp, faulty):
    with pytest.raises(KeyboardInterrupt), Process() as process:
        process.load(subject(mlp, faulty, hang="1"), mlp[1])
        pid = process.pid
        raise KeyboardInterrupt
    assert not psutil.pid_exists(pid)


def test_children_die_with_a_parent_that_is_killed(mlp, faulty, tmp_path):
    (tmp_path / "model.onnx").write_bytes(mlp[0])
    script = f"""
        import numpy as np
        from pathlib import Path
        from edgewise.measure import Subject
        from edgewise.measure.process import Process
        from edgewise.types import Execution
        subject = Subject(Path({str(tmp_path / "model.onnx")!r}).read_bytes(), Execution({faulty!r}, options={{"hang": "1"}}))
        process = Process()
        process.load(subject, {{"x": np.ones((1, 16), np.float32)}})
        print(process.pid, flush=True)
        process.first()
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        assert psutil.pid_exists(child)
        parent.kill()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_profile_fills_the_record(mlp, device):
    measured = profile(mlp[0], Execution("onnxruntime"), mlp[1], device, seconds=0.1, min_samples=100)
    assert len(measured.latency.samples_ms) >= 100
    assert measured.size_bytes == len(mlp[0])
    assert measured.cold_start_ms > measured.latency.p50_ms
    assert measured.peak_memory_bytes > 1 << 20
    assert measured.throughput_per_s == pytest.approx(1e3 / measured.latency.p50_ms, rel=5)
    assert measured.conditions.engine == f"onnxruntime {device.backends['onnxruntime']}"
    assert measured.conditions.affinity
    assert measured.energy_source == device.energy
    assert measured.execution == Execution("onnxruntime")  # as asked; the axes fixed for the run are not part of it


def test_profile_does_not_move_its_caller(mlp, device, faulty):
    before = os.sched_getaffinity(0)
    with pytest.raises(InvalidModel):
        profile(mlp[0], Execution(faulty, options={"refuse": "1"}), mlp[1], device)
    assert os.sched_getaffinity(0) == before


def test_compare_finds_the_slower_one(mlp, device, faulty):
    """Sleeps of 8 and 2 ms: a ratio near 4, whatever else the machine does."""
    slow, fast = subject(mlp, faulty, ms="8"), subject(mlp, faulty, ms="2")
    found = compare(slow, fast, mlp[1], device, half_width=0.3, block_ms=20, min_pairs=6, max_seconds=20, renew_pairs=4)
    assert 2 < found.ratio.value < 5
    assert len(found.pairs) == len(found.reference_ms) == len(found.candidate_ms) >= 6
    assert found.candidate_conditions.engine == f"{faulty} 1.0"


def test_compare_refuses_unequal_threads(mlp, device):
    with pytest.raises(InvalidInput, match="threads"):
        compare(Subject(mlp[0], Execution("onnxruntime", threads=2)), subject(mlp, "onnxruntime"), mlp[1], device)


def test_more_threads_than_cores_are_refused(mlp, device):
    with pytest.raises(InvalidInput, match="may run on"):
        profile(mlp[0], Execution("onnxruntime", threads=4096), mlp[1], device)


def test_race_says_who_failed(mlp, device, faulty):
    subjects = [
        subject(mlp, faulty, ms="6"),
        subject(mlp, faulty, ms="1"),
        subject(mlp, faulty, refuse="1"),
        subject(mlp, faulty, die="1"),
    ]
    found = race(subjects, mlp[1], device, block_ms=10, min_rounds=2, rounds=3)
    assert [bool(contender.failed) for contender in found] == [False, False, True, True]
    assert found[1].ratio.value > 2
    assert "refused" in found[2].failed
    assert "last words" in found[3].failed
    assert found[2].ratio is None
    with pytest.raises(InvalidModel):
        race(subjects[2:], mlp[1], device)
