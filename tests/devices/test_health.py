import os
import sys

import pytest

from edgewise.devices import Disturbance, Health
from edgewise.devices.look import look, sources
from edgewise.testing import FakeClock

CPU = "sys/devices/system/cpu"
ZONE = "sys/class/thermal/thermal_zone"
PI = "sys/devices/platform/soc/soc:firmware/get_throttled"


class Machine:
    """Counters of two cores, 1 of them ours unless said, and of one process of two threads; they move as `passes` says."""

    def __init__(self, tree, cores=(1,), files=None, schedstat=True):
        self.tree, self.clock, self.schedstat = tree, FakeClock(), schedstat
        self.ticks = {core: [0, 0] for core in (0, 1)}  # idle, steal
        self.ran = self.waited = 0.0
        self.pids = [7]
        self.passes(0, **(files or {}))
        self.health = Health(cores, lambda: self.pids, tree({}), self.clock)
        assert not self.health()

    def passes(self, seconds, idle=(0, 0), steal=(0, 0), ran=None, waited=0.0, **files):
        """Ticks by core, seconds of the process. It runs all the time unless said."""
        self.clock.sleep(seconds)
        for core in (0, 1):
            self.ticks[core][0] += idle[core]
            self.ticks[core][1] += steal[core]
        self.ran += seconds if ran is None else ran
        self.waited += waited
        lines = [f"cpu{core} 5 0 5 {idle} 0 0 0 {steal} 0 0" for core, (idle, steal) in self.ticks.items()]
        known = {"proc/stat": "\n".join(["cpu  1 1 1 1 1 1 1 1", *lines, "intr 5 cpu1 0", "ctxt 9"])}
        for thread, share in ((7, 0.25), (8, 0.75)) if self.schedstat else ():
            known[f"proc/7/task/{thread}/schedstat"] = f"{1e9 * share * self.ran:.0f} {1e9 * share * self.waited:.0f} 3"
        known["proc/7/stat"] = f"7 (a (very) odd name) R 1 7 7 0 -1 0 1 1 1 1 {100 * self.ran:.0f} 0 0 0 20 0"
        self.tree(known | {name: str(text) for name, text in files.items()})

    def said(self, *passed, **changes):
        self.passes(*passed, **changes)
        return [one.said for one in self.health()]


def test_a_quiet_machine_is_clean(tree):
    machine = Machine(tree)
    assert machine.said(0.1, waited=0.001) == []
    assert machine.said(0.1, idle=(10, 1), ran=0.09) == []


@pytest.mark.parametrize(
    ("ticks", "seconds", "expected"),
    [
        ((0, 1), 0.1, ["steal 10 %"]),  # in a short block one tick is enough
        ((0, 1), 0.4, []),
        ((0, 5), 0.4, ["steal 12 %"]),
        ((9, 0), 0.1, []),  # of a core that isn't ours
    ],
)
def test_steal(tree, ticks, seconds, expected):
    assert Machine(tree).said(seconds, steal=ticks) == expected


def test_steal_goes_by_the_worst_core(tree):
    machine = Machine(tree, cores=(0, 1))
    assert machine.said(0.2, steal=(1, 6), ran=0.33) == ["steal 30 %"]


def test_who_makes_our_only_core_wait_has_taken_it(tree):
    machine = Machine(tree)
    assert machine.said(0.1, ran=0.07, waited=0.03) == ["other processes took 30 % of core 1"]
    assert machine.said(0.1, ran=0.096, waited=0.004) == []


def test_threads_that_wait_for_each_other_are_no_others(tree):
    assert Machine(tree).said(0.1, ran=0.099, waited=0.05) == []
    assert Machine(tree, cores=(0, 1)).said(0.1, ran=0.2, waited=0.1) == []


def test_idling_is_nobody_s_time(tree):
    assert Machine(tree).said(0.1, ran=0.02, idle=(0, 8)) == []


def test_on_several_cores_ticks_have_to_show_it_too(tree):
    machine = Machine(tree, cores=(0, 1))
    assert machine.said(0.1, ran=0.12, waited=0.06) == ["other processes took 40 % of cores 0, 1"]
    assert machine.said(0.1, ran=0.12, idle=(4, 4), waited=0.06) == []  # threads at a barrier
    assert machine.said(0.1, ran=0.12, waited=0.002) == []  # they took what we had no use for
    assert machine.said(0.1, ran=0.175, waited=0.06) == []  # may be rounding


def test_without_waiting_times_ticks_alone_decide(tree):
    machine = Machine(tree, schedstat=False)
    assert machine.said(0.1, ran=0.05) == ["other processes took 50 % of core 1"]
    assert machine.said(0.1, ran=0.09) == []  # a tick, which may be rounding
    zeros = {f"proc/7/task/{thread}/schedstat": "0 0 0" for thread in (7, 8)}  # a kernel that has the file and doesn't count
    machine.passes(0.1, ran=0.05, **zeros)
    assert [one.said for one in machine.health()] == ["other processes took 50 % of core 1"]


def test_a_quota_s_throttling_is_the_device_s_own(tree):
    group = {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "50000 100000"}
    machine = Machine(tree, files=group)
    assert machine.said(0.1, ran=0.05, idle=(0, 5), waited=0.05) == []
    assert machine.said(0.1, ran=0.05, waited=0.05) == ["other processes took 50 % of core 1"]


def test_a_process_started_anew_is_not_compared_with_another(tree):
    machine = Machine(tree)
    machine.pids = [8]
    assert machine.said(0.1, ran=0.02, waited=0.08) == []


def test_the_hyper_thread_beside(tree):
    machine = Machine(tree, files={f"{CPU}/cpu1/topology/thread_siblings_list": "0-1"})
    assert machine.said(0.1, idle=(4, 0)) == ["core 0, which shares its units with core 1, was busy for 60 % of the time"]
    assert machine.said(0.1, idle=(8, 0)) == []
    apart = Machine(tree, files={f"{CPU}/cpu1/topology/thread_siblings_list": "1"})
    assert apart.said(0.1, idle=(0, 0)) == []


def test_events_of_heat(tree):
    count, package = (f"{CPU}/cpu1/thermal_throttle/{name}_throttle_count" for name in ("core", "package"))
    machine = Machine(tree, files={count: 3, package: 5})
    assert machine.said(0.1) == []
    assert machine.said(0.1, **{count: 4}) == ["throttled: the processor was too hot"]
    assert machine.said(0.1) == []
    assert machine.said(0.1, **{package: 6}) == ["throttled: the processor was too hot"]


def test_a_raspberry_s_firmware(tree):
    machine = Machine(tree, files={PI: "50000"})  # long ago
    assert machine.said(0.1) == []
    assert machine.said(0.1, **{PI: "50005"}) == ["throttled by the firmware: under-voltage, throttled"]
    assert machine.said(0.1, **{PI: "50000"}) == []
    assert machine.said(0.1, **{PI: "d0000"}) == ["throttled by the firmware: soft temperature limit"]  # between the looks
    assert machine.said(0.1) == []


def test_a_clock_that_fell(tree):
    clock = f"{CPU}/cpu1/cpufreq/scaling_cur_freq"
    machine = Machine(tree, files={clock: 1_800_000})
    assert machine.said(0.1, **{clock: 2_400_000}) == []
    assert machine.said(0.1, **{clock: 2_200_000}) == []
    assert machine.said(0.1, **{clock: 1_500_000}) == ["clock fell from 2.4 to 1.5 GHz"]
    assert machine.said(0.1) == ["clock fell from 2.4 to 1.5 GHz"]  # and is still slow


def test_the_slowest_core_s_clock(tree):
    clocks = [f"{CPU}/cpu{core}/cpufreq/scaling_cur_freq" for core in (0, 1)]
    machine = Machine(tree, cores=(0, 1), files=dict.fromkeys(clocks, 2_000_000))
    assert machine.said(0.1, ran=0.2, **{clocks[0]: 1_000_000}) == ["clock fell from 2 to 1 GHz"]


def test_heat(tree):
    files = {
        f"{ZONE}0/type": "acpitz",  # isn't asked
        f"{ZONE}0/trip_point_0_type": "passive",
        f"{ZONE}0/trip_point_0_temp": 30_000,
        f"{ZONE}0/temp": 90_000,
        f"{ZONE}1/type": "cpu-thermal",
        f"{ZONE}1/trip_point_0_type": "critical",
        f"{ZONE}1/trip_point_0_temp": 60_000,
        f"{ZONE}1/trip_point_1_type": "passive",
        f"{ZONE}1/trip_point_1_temp": 80_000,
        f"{ZONE}1/temp": 77_000,
    }
    machine, temp = Machine(tree, files=files), f"{ZONE}1/temp"
    assert machine.said(0.1) == []
    assert machine.said(0.1, **{temp: 78_400}) == ["78 °C, and the processor is slowed from 80 °C on"]
    assert machine.said(0.1) == []  # no longer on its way up
    assert machine.said(0.1, **{temp: 81_000}) == ["81 °C, and the processor is slowed from 80 °C on"]
    assert machine.said(0.1) == ["81 °C, and the processor is slowed from 80 °C on"]


def test_all_that_happened_is_told(tree):
    machine = Machine(tree, files={PI: "0"})
    machine.passes(0.1, steal=(0, 2), ran=0.05, waited=0.03, **{PI: "2"})
    assert machine.health() == (
        Disturbance("steal", pytest.approx(0.2), "steal 20 %"),
        Disturbance("others", pytest.approx(0.3), "other processes took 30 % of core 1"),
        Disturbance("throttled", 1, "throttled by the firmware: clock capped"),
    )
    assert machine.health() == ()  # no time has passed


def test_a_system_that_tells_nothing(tmp_path):
    health = Health((0,), lambda: [7], tmp_path, FakeClock())
    assert (health(), health()) == (None, None)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_real_look():
    where = sources((max(os.sched_getaffinity(0)),))
    before = look(where, [os.getpid()])
    while look(where, [os.getpid()]).at_s < before.at_s + 0.05:
        pass
    after = look(where, [os.getpid()])
    assert after.tells
    assert set(where.cores) <= set(after.idle) == set(after.steal)
    assert before.used_s <= after.used_s
