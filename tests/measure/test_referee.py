"""Which blocks count, and what the record says of the others."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgewise.devices import Disturbance
from edgewise.graph import Graph
from edgewise.measure import Subject, compare
from edgewise.measure.alternating import Alternating
from edgewise.measure.cores import choose, physical_cores
from edgewise.measure.messages import Timed
from edgewise.measure.profiling import sliced
from edgewise.measure.referee import Referee
from edgewise.records import Conditions
from edgewise.testing import graphs
from edgewise.types import Execution, from_json, to_json

CONDITIONS = Conditions("here", "engine 1", 1, (0,), None, None, None, None, "2026-01-01")
ORT = Execution("onnxruntime")


def steal(share):
    return Disturbance("steal", share, f"steal {100 * share:.0f} %")


def others(share):
    return Disturbance("others", share, f"other processes took {100 * share:.0f} % of core 1")


def asked(found, **options):
    """A referee that was asked for every look of `found`, and what it said."""
    script = iter(found)
    referee = Referee(lambda: next(script), **options)
    return referee, [referee.counts() for _ in found]


def test_the_record_has_the_worst_of_each_kind_the_most_frequent_first():
    looks = [(), (others(0.3),), (steal(0.05),), (steal(0.14),), (), (others(0.2), steal(0.1))]
    referee, said = asked(looks, least=9)
    assert said == [True, False, False, False, True, True]
    found = referee.told(CONDITIONS)
    assert (found.watched, found.again, found.disturbed) == (3, 3, 1)
    assert found.disturbances == ("steal 14 %", "other processes took 30 % of core 1")
    assert from_json(to_json(found), Conditions) == found


def test_never_more_than_a_third_more():
    referee, said = asked([(), (steal(0.5),)] * 200)
    assert referee.again == referee.counted // 3
    assert said.count(True) == referee.counted == 300
    assert referee.disturbed == 100


def test_where_the_system_tells_nothing_nobody_looked():
    referee, said = asked([None] * 5)
    assert said == [True] * 5
    assert referee.told(CONDITIONS) == CONDITIONS
    assert Referee().counts()


def test_conditions_of_before_are_read():
    old = json.loads(to_json(CONDITIONS))
    for added in ("watched", "again", "disturbed", "disturbances"):
        del old[added]
    assert from_json(json.dumps(old).encode(), Conditions) == CONDITIONS


def mlp():
    model, inputs = graphs.mlp(batch=1)
    return model.SerializeToString(), inputs


def test_a_latency_table_s_pairs_are_measured_again():
    model, inputs = mlp()
    looks = iter([(), (), (steal(0.3),), (), ()])
    core = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    with Alternating(Graph.from_bytes(model), ORT, inputs, (core,), looked=lambda: next(looks, ())) as timer:
        assert len(timer(Graph.from_bytes(model), 3)) == 3
        assert len(timer(Graph.from_bytes(model), 2)) == 2
        assert (timer.referee.counted, timer.referee.again) == (5, 1)


@pytest.mark.skipif(sys.platform != "linux" or not Path("/proc/self/schedstat").exists(), reason="who waits isn't told")
def test_a_busy_neighbour_shows_in_the_record(device):
    model, inputs = mlp()
    subject = Subject(model, ORT)
    core = choose(1, sorted(os.sched_getaffinity(0)), physical_cores())[0]
    busy = "import sys, time\nprint(flush=True)\nend = time.time() + 60\nwhile time.time() < end: pass"
    with subprocess.Popen([sys.executable, "-c", busy], stdout=subprocess.PIPE) as neighbour:
        os.sched_setaffinity(neighbour.pid, {core})
        neighbour.stdout.readline()
        try:
            found = compare(subject, subject, inputs, device, half_width=10, block_ms=20, min_pairs=12, max_seconds=60)
        finally:
            neighbour.kill()
    conditions = found.candidate_conditions
    assert conditions.watched == len(found.pairs)
    assert 0 < conditions.again <= max(12, len(found.pairs)) / 3
    assert conditions.disturbed  # more than are measured again
    assert any(said.startswith("other processes took") and said.endswith(f"of core {core}") for said in conditions.disturbances)
    assert found.reference_conditions.disturbances == conditions.disturbances


def test_a_piece_of_a_profile_that_was_disturbed_is_taken_again():
    asked_of = []

    class Sampled:
        def sample(self, seconds, min_samples, keep, *, again):
            asked_of.append((seconds, min_samples, again))
            return Timed(10, 20.0, [float(len(asked_of))], 3)

    looks = iter([(), (), (steal(0.3),)])
    referee = Referee(lambda: next(looks, ()), least=8)
    pieces, calls = sliced(Sampled(), referee, 2.0, 100)
    assert [piece.samples_ms for piece in pieces] == [[float(n)] for n in (1, 3, 4, 5, 6, 7, 8, 9)]  # the second was disturbed
    assert calls == 9 * 13 and (referee.counted, referee.again) == (8, 1)
    assert asked_of[0] == (0.25, 13, False) and asked_of[1] == (0.25, 13, True)
