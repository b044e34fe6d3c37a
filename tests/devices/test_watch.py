from edgewise.devices import Watch, watch

STAT = "cpu  100 0 100 700 0 0 0 100 0 0\ncpu0 50 0 50 390 0 0 0 10 0 0\ncpu1 50 0 50 310 0 0 0 90 0 0"


def test_a_reading(tree):
    root = tree(
        {
            "proc/stat": STAT,
            "proc/loadavg": "0.50 0.40 0.30 1/200 4711",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000",
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "600000",
            "sys/class/thermal/thermal_zone0/type": "battery",
            "sys/class/thermal/thermal_zone0/temp": "99000",
            "sys/class/thermal/thermal_zone1/type": "cpu-thermal",
            "sys/class/thermal/thermal_zone1/temp": "51500",
        }
    )
    assert watch.read((1,), root) == watch.Reading(90, 500, 600.0, 51.5, 0.5)
    assert watch.read((), root).frequency_mhz == 1050
    assert watch.read((), root).steal == 100


def test_hwmon_and_cpuinfo_stand_in(tree):
    root = tree(
        {
            "proc/cpuinfo": "cpu MHz : 2000.0\ncpu MHz : 3000.0",
            "sys/class/hwmon/hwmon0/name": "nvme",
            "sys/class/hwmon/hwmon0/temp1_input": "90000",
            "sys/class/hwmon/hwmon1/name": "k10temp",
            "sys/class/hwmon/hwmon1/temp1_input": "40000",
            "sys/class/hwmon/hwmon1/temp2_input": "45000",
        }
    )
    assert watch.temperature_c(root) == 45
    assert watch.frequency_mhz((1,), root) == 3000
    assert watch.frequency_mhz((), root) == 2500


def test_what_the_system_does_not_tell_is_none(tmp_path, tree):
    found = Watch((0,), tmp_path).conditions(device="d", engine="e 1", threads=1)
    assert (found.frequency_mhz, found.temperature_c, found.steal, found.load) == (None, None, None, None)
    assert found.affinity == (0,)
    assert watch.read((), tree({"proc/stat": "cpu  1 2 3 4"})).steal is None  # kernels before steal was counted


def test_conditions_span_the_time_between(tree):
    files = {"proc/stat": STAT, "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "1000000", "proc/loadavg": "1.5 1 1 1/2 3"}
    root = tree(files | {"sys/class/thermal/thermal_zone0/type": "soc_thermal", "sys/class/thermal/thermal_zone0/temp": "50000"})
    watching = Watch((1,), root)
    tree({"proc/stat": STAT.replace("cpu1 50 0 50 310 0 0 0 90", "cpu1 100 0 50 330 0 0 0 120"), "proc/loadavg": "9 9 9 1/2 3"})
    tree({"sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "500000", "sys/class/thermal/thermal_zone0/temp": "60000"})
    found = watching.conditions(device="d", engine="e 1", threads=2)
    assert found.steal == 0.3
    assert (found.frequency_mhz, found.temperature_c, found.load) == (750, 60, 1.5)
    assert found.started.endswith("+00:00")
