import pytest

from edgewise.devices import Disturbance
from edgewise.errors import InvalidInput, MeasurementFailed
from edgewise.measure.interleave import laps, paired, ratio_to
from edgewise.measure.referee import Referee
from edgewise.testing import FakeClock


def timer(clock, log, name, milliseconds, block_ms=50):
    """A block timer that logs its name, moves the clock by the block, and gives the next of `milliseconds` (the last one forever)."""
    script = list(milliseconds)

    def block(min_ms):
        assert min_ms == block_ms
        clock.sleep(min_ms / 1e3)
        log.append(name)
        return script.pop(0) if len(script) > 1 else script[0]

    return block


def test_blocks_alternate_and_the_first_of_each_side_is_dropped():
    clock, log = FakeClock(), []
    found = paired(timer(clock, log, "A", [99, 4]), timer(clock, log, "B", [99, 2]), min_pairs=6, clock=clock)
    assert "".join(log) == "AB" + "ABBA" * 3
    assert found.pairs == (2.0,) * 6
    assert found.reference_ms == (4,) * 6
    assert found.candidate_ms == (2,) * 6
    assert found.conclusive
    assert found.ratio.value == 2
    assert found.seconds == pytest.approx(14 * 0.05)


def test_steady_drift_cancels():
    clock, log = FakeClock(), []
    a = timer(clock, log, "A", [1.0 * 1.01**i for i in [0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24]])
    b = timer(clock, log, "B", [0.5 * 1.01**i for i in [0, 2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23]])
    assert paired(a, b, min_pairs=12, clock=clock, half_width=0.02).ratio.value == pytest.approx(2, rel=1e-4)


def test_noise_that_never_settles_is_inconclusive_and_ends_in_time():
    clock, log = FakeClock(), []
    noisy = [1.0, *[1.5, 0.7] * 200]
    found = paired(timer(clock, log, "A", noisy), timer(clock, log, "B", [1.0]), max_seconds=5, clock=clock)
    assert not found.conclusive
    assert 5 <= found.seconds <= 5.2
    assert len(found.pairs) == len(found.reference_ms) == found.ratio.n


def test_too_few_pairs_are_never_conclusive():
    clock, log = FakeClock(), []
    found = paired(timer(clock, log, "A", [1.0]), timer(clock, log, "B", [1.0]), max_seconds=0.3, min_pairs=1, clock=clock)
    assert len(found.pairs) < 6
    assert not found.conclusive
    assert found.ratio.confidence < 0.95


def test_renewal_launches_and_warms_up_again():
    clock, log = FakeClock(), []
    found = paired(
        timer(clock, log, "A", [1.0]),
        timer(clock, log, "B", [1.0]),
        min_pairs=6,
        renew_pairs=2,
        launch=lambda: log.append("|"),
        clock=clock,
    )
    assert "".join(log) == "|ABABBA" * 3
    assert len(found.pairs) == 6


@pytest.mark.parametrize("wrong", [{"half_width": 0}, {"block_ms": -1}, {"min_pairs": 0}, {"max_seconds": 0}])
def test_limits_must_be_positive(wrong):
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        paired(lambda _: 1.0, lambda _: 1.0, **wrong)


def race(clock, timers, **changes):
    failed = {}
    options = {"block_ms": 50, "min_rounds": 6, "rounds": 16, "max_seconds": 60} | changes
    times, dropped = laps(timers, failed, clock=clock, **options)
    return times, dropped, failed


def test_race_rotates_and_drops_the_clearly_slower():
    clock, log = FakeClock(), []
    timers = {0: timer(clock, log, "a", [2.0]), 1: timer(clock, log, "b", [1.0]), 2: timer(clock, log, "c", [1.5])}
    times, dropped, failed = race(clock, timers)
    assert "".join(log).startswith("abc" + "abc" + "bca" + "cab" + "abc")
    assert dropped == {2}  # the first stays: ratios refer to it
    assert [len(times[i]) for i in range(3)] == [16, 16, 6]
    assert ratio_to(times[0], times[1]).value == 2
    assert not failed


def test_race_keeps_those_that_noise_hides():
    clock, log = FakeClock(), []
    timers = {0: timer(clock, log, "a", [1.0]), 1: timer(clock, log, "b", [1.0, *[0.9, 1.1] * 20]), 2: timer(clock, log, "c", [1.0])}
    assert race(clock, timers)[1] == set()


def test_race_goes_on_without_one_that_dies():
    clock, log = FakeClock(), []
    calls = []

    def dies(_):
        calls.append(1)
        if len(calls) > 2:
            raise MeasurementFailed("died")
        return 1.0

    times, dropped, failed = race(clock, {0: timer(clock, log, "a", [1.0]), 1: dies})
    assert failed == {1: "died"}
    assert len(times[0]) == 6  # alone, there is nothing left to choose
    assert dropped == set()


def test_race_ends_in_time_and_with_one_left():
    clock, log = FakeClock(), []
    timers = {0: timer(clock, log, "a", [1.0]), 1: timer(clock, log, "b", [9.0])}
    times, dropped, _ = race(clock, timers)
    assert (len(times[0]), dropped) == (6, {1})
    times, _, _ = race(clock, {0: timer(clock, log, "a", [1.0])}, max_seconds=0.01)
    assert len(times[0]) == 1


STEAL = Disturbance("steal", 0.12, "steal 12 %")


def watching(log, found, least=20):
    """A referee to whom the machine tells `found` block by block (then nothing); what it says goes into the log."""
    script = iter(found)

    class Logged(Referee):
        def begin(self):
            log.append("<")

        def counts(self, *, last=False):
            counted = super().counts(last=last)
            log.append("." if counted else "x")
            return counted

    return Logged(lambda: next(script, ()), least=least)


def test_disturbed_pairs_are_measured_again_both_sides_and_in_the_same_order():
    clock, log = FakeClock(), []
    referee = watching(log, [(), (STEAL,), (STEAL,), ()])
    a, b = timer(clock, log, "A", [99, 4, 40, 4, 4]), timer(clock, log, "B", [99, 2, 2, 20, 2])
    found = paired(a, b, min_pairs=6, referee=referee, clock=clock)
    assert "".join(log) == "AB<" + "AB." + "BAx" + "BAx" + "BA." + "AB.BA." * 2
    assert found.pairs == (2.0,) * 6  # neither 40 / 2 nor 4 / 20
    assert found.reference_ms == (4,) * 6
    assert (referee.counted, referee.again, referee.disturbed) == (6, 2, 0)
    assert found.seconds == pytest.approx(18 * 0.05)


def test_a_machine_that_is_never_quiet_takes_a_third_longer_and_ends():
    clock, log = FakeClock(), []
    referee = watching(log, [(STEAL,)] * 1000, least=12)
    found = paired(timer(clock, log, "A", [1.0]), timer(clock, log, "B", [1.0]), min_pairs=12, referee=referee, clock=clock)
    assert found.conclusive
    assert (referee.counted, referee.again, referee.disturbed) == (12, 4, 12)
    never, long = [1 + 0.001 * i for i in range(1000)], watching([], [(STEAL,)] * 1000, least=12)
    a, b = timer(clock, [], "A", never), timer(clock, [], "B", [1.0])
    found = paired(a, b, half_width=1e-6, max_seconds=20, referee=long, clock=clock)
    assert 40 < long.again <= long.counted // 3 <= long.again + 1
    assert len(found.pairs) == long.counted == long.disturbed


def test_what_a_pair_s_times_are_decides_nothing():
    clock, log = FakeClock(), []
    referee = watching(log, [])
    wild = [1.0, *[0.1, 50, 3] * 40]
    found = paired(timer(clock, log, "A", wild), timer(clock, log, "B", [1.0]), min_pairs=6, max_seconds=3, referee=referee, clock=clock)
    assert (referee.again, referee.disturbed) == (0, 0)
    assert found.reference_ms == tuple(wild[1 : len(found.pairs) + 1])


def test_when_time_is_up_a_disturbed_pair_counts():
    clock, log = FakeClock(), []
    referee = watching(log, [(STEAL,)] * 100)
    found = paired(timer(clock, log, "A", [1.0]), timer(clock, log, "B", [1.0]), max_seconds=0.35, referee=referee, clock=clock)
    assert (len(found.pairs), referee.again, referee.disturbed) == (1, 2, 1)


def test_a_disturbed_pair_starts_no_renewal():
    clock, log = FakeClock(), []
    referee = watching(log, [(), (), (STEAL,), ()])
    a, b = timer(clock, log, "A", [1.0]), timer(clock, log, "B", [1.0])
    paired(a, b, min_pairs=6, renew_pairs=2, launch=lambda: log.append("|"), referee=referee, clock=clock)
    assert "".join(log) == "|AB<AB.BA." + "|AB<ABxAB.BA." + "|AB<AB.BA."


def test_a_race_measures_the_disturbed_block_again():
    clock, log = FakeClock(), []
    timers = {0: timer(clock, log, "a", [2.0, 2.0, 70.0, 2.0]), 1: timer(clock, log, "b", [1.0])}
    referees = {0: watching(log, [(), (STEAL,), ()], least=6), 1: watching(log, [(STEAL,)] * 100, least=6)}
    times, _, _ = race(clock, timers, referees=referees, rounds=6)
    assert "".join(log).startswith("ab" + "<a." + "<bxbxb." + "<b." + "<axa." + "<a.<b.")
    assert times == {0: [2.0] * 6, 1: [1.0] * 6}
    assert [(each.again, each.disturbed) for each in referees.values()] == [(1, 0), (2, 6)]


def test_one_that_dies_while_it_is_measured_again_leaves_the_race():
    clock, log, calls = FakeClock(), [], []

    def dies(_):
        calls.append(1)
        if len(calls) > 2:
            raise MeasurementFailed("died")
        return 1.0

    timers = {0: timer(clock, log, "a", [1.0]), 1: dies}
    times, _, failed = race(clock, timers, referees={1: watching([], [(STEAL,)])})
    assert (times[1], failed) == ([], {1: "died"})
