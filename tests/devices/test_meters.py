import threading
import time

import pytest

from edgewise.devices import meters


def test_a_machine_without_any_says_so(tmp_path):
    assert meters.available(tmp_path) == ()
    assert meters.source(tmp_path).startswith("none: no RAPL")


def rapl(zone, name, energy, wrap="1000000000"):
    folder = f"sys/class/powercap/intel-rapl:{zone}"
    return {f"{folder}/name": name, f"{folder}/energy_uj": energy, f"{folder}/max_energy_range_uj": wrap}


def test_rapl_counts_packages_once(tree):
    before = rapl("0", "package-0", "5000000") | rapl("0:0", "core", "1") | rapl("1", "package-1", "999000000") | rapl("2", "psys", "7")
    root = tree(before)
    assert meters.source(root) == "RAPL (2 packages)"
    stop = meters.available(root)[0].start()
    tree(rapl("0", "package-0", "7500000") | rapl("1", "package-1", "500000") | rapl("0:0", "core", "900") | rapl("2", "psys", "90000"))
    assert stop() == pytest.approx(2.5 + 1.5)  # the second package's counter wrapped at 1,000 J


def test_a_counter_that_goes_away_or_back_is_no_figure(tree):
    root = tree({"a": "100", "b": "100"})
    for path, text in ((root / "a", "gone"), (root / "b", "50")):
        stop = meters.counter("test", ((path, None),)).start()
        path.write_text(text)
        assert stop() is None


def test_rapl_that_only_root_may_read(tree):
    root = tree({"sys/class/powercap/intel-rapl:0/name": "package-0"})
    assert meters.available(root) == ()
    assert "only" in meters.source(root)


def test_hwmon(tree):
    folder = "sys/class/hwmon/hwmon0"
    root = tree({f"{folder}/name": "ina226", f"{folder}/power1_input": "3000000"})
    assert meters.source(root) == "hwmon ina226 power1"
    root = tree({"sys/class/hwmon/hwmon1/name": "amd_energy", "sys/class/hwmon/hwmon1/energy1_label": "Ecore000"})
    tree({"sys/class/hwmon/hwmon1/energy9_label": "Esocket0", "sys/class/hwmon/hwmon1/energy9_input": "1000000"})
    stop = meters.available(root)[0].start()
    tree({"sys/class/hwmon/hwmon1/energy9_input": "3500000"})
    assert stop() == pytest.approx(2.5)


def test_ina3221_and_battery_multiply(tree):
    folder, battery = "sys/class/hwmon/hwmon0", "sys/class/power_supply/BAT0"
    root = tree({f"{folder}/name": "ina3221", f"{folder}/curr1_input": "1000", f"{folder}/in1_input": "5000"})
    tree({f"{battery}/type": "Battery", f"{battery}/status": "Discharging"})
    tree({f"{battery}/current_now": "-2000000", f"{battery}/voltage_now": "4000000"})
    names = [meter.name for meter in meters.available(root)]
    assert names == ["hwmon ina3221 channel 1", "battery BAT0"]
    assert meters._product(root / folder / "curr1_input", root / folder / "in1_input", 1e-6) == 5
    assert meters._product(root / battery / "current_now", root / battery / "voltage_now", 1e-12) == 8
    tree({f"{battery}/status": "Charging"})
    assert len(meters.available(root)) == 1


def test_watts_are_integrated_by_the_trapezoid_rule():
    times, watts = iter([0.0, 1.0, 3.0]), iter([2.0, 4.0, 4.0])
    looked = threading.Event()

    def look():
        value = next(watts)
        if value == 4.0:
            looked.set()
        return value

    meter = meters.sampled("test", look, period_s=0.01, clock=lambda: next(times, 3.0))
    stop = meter.start()
    looked.wait(5)
    # further looks by the thread repeat the last time: they add nothing
    watts_left = iter([4.0] * 1000)
    watts = watts_left
    assert stop() == pytest.approx(3.0 + 8.0)


def test_a_sensor_that_fails_gives_no_figure():
    stop = meters.sampled("test", lambda: None).start()
    assert stop() is None


def test_a_counter_may_wrap_once_and_its_range_counts(tree):
    root = tree(rapl("0", "package-0", "999999999", "1000000000"))
    stop = meters.available(root)[0].start()
    tree(rapl("0", "package-0", "1", "1000000000"))
    assert stop() == pytest.approx(2e-6)


@pytest.mark.parametrize(
    ("files", "name", "watts"),
    [
        ({"hwmon/hwmon2/name": "ina219", "hwmon/hwmon2/power1_input": "2500000"}, "hwmon ina219 power1", 2.5),
        (
            {"hwmon/hwmon3/name": "ina3221", "hwmon/hwmon3/curr1_input": "400", "hwmon/hwmon3/in1_input": "5000"},
            "hwmon ina3221 channel 1",
            2.0,
        ),
        (
            {"power_supply/BAT1/type": "Battery", "power_supply/BAT1/status": "Discharging", "power_supply/BAT1/power_now": "7500000"},
            "battery BAT1",
            7.5,
        ),
    ],
)
def test_sensors_of_watts_are_added_up_over_the_time(tree, files, name, watts):
    meter = meters.best(root=tree({f"sys/class/{path}": text for path, text in files.items()}))
    assert meter.name == name
    began = time.monotonic()
    stop = meter.start()
    time.sleep(0.12)
    joules = stop()
    assert 0.12 * watts <= joules <= (time.monotonic() - began) * watts


def test_a_sensor_that_disappears_gives_no_figure(tree):
    root = tree({"sys/class/hwmon/hwmon0/name": "ina226", "sys/class/hwmon/hwmon0/power1_input": "3000000"})
    stop = meters.best(root=root).start()
    (root / "sys/class/hwmon/hwmon0/power1_input").unlink()
    assert stop() is None
