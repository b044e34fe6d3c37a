import pytest

from edgewise.errors import InvalidInput, MeasurementFailed
from edgewise.measure import Work, latency, roofline_ms
from edgewise.records import Peaks
from edgewise.testing import FakeClock, FakeRunner


def test_every_sample_in_order_without_the_warm_up():
    clock = FakeClock()
    found = latency(FakeRunner(clock, [9, 9, 1, 2, 3, 4]), {"x": 0}, runs=4, warmup=2, clock=clock)
    assert found.samples_ms == pytest.approx((1, 2, 3, 4))
    assert found.p50_ms == pytest.approx(2.5)


def test_a_device_that_throttles_is_told():
    clock = FakeClock()
    script = [1.0] * 50 + [1.3] * 50
    with pytest.raises(MeasurementFailed, match="throttles"):
        latency(FakeRunner(clock, script), {"x": 0}, runs=100, warmup=0, clock=clock)
    assert len(latency(FakeRunner(clock, [1.0] * 50 + [1.15] * 50), {"x": 0}, runs=100, warmup=0, clock=clock).samples_ms) == 100


def test_some_outliers_are_not_throttling():
    clock = FakeClock()
    script = [1.0] * 50 + ([1.0] * 4 + [30.0]) * 10
    assert latency(FakeRunner(clock, script), {"x": 0}, warmup=0, clock=clock).percentile(100) == pytest.approx(30)


@pytest.mark.parametrize("wrong", [{"runs": 0}, {"warmup": -1}])
def test_wrong_counts(wrong):
    with pytest.raises(InvalidInput):
        latency(FakeRunner(FakeClock()), {"x": 0}, **wrong)


def test_roofline_is_the_longer_of_computing_and_moving():
    peaks = Peaks(1, fp32_gflops=100, int8_gops=400, memory_gbps=10)
    assert roofline_ms(peaks, Work(float_macs=50_000_000)) == pytest.approx(1.0)
    assert roofline_ms(peaks, Work(int8_macs=50_000_000)) == pytest.approx(0.25)
    assert roofline_ms(peaks, Work(float_macs=50_000_000, int8_macs=50_000_000, moved_bytes=1000)) == pytest.approx(1.25)
    assert roofline_ms(peaks, Work(float_macs=1, moved_bytes=20_000_000)) == pytest.approx(2.0)
