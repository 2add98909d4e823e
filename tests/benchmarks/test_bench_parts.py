"""The benchmark's arithmetic and bookkeeping, with doubles of clocks and machines."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from spinescore.benchmarks.bench import starts
from spinescore.benchmarks.bench.energy import Rapl, Sensors, energy, open_meter
from spinescore.benchmarks.bench.load import arrivals, closed_loop, open_loop
from spinescore.benchmarks.harness.environment import Watch, memory_bytes, settings, warnings_of
from spinescore.benchmarks.harness.subject import Subject
from spinescore.benchmarks.harness.timing import SETTLE_S, Limit, figures, in_turn, spread
from spinescore.runtime.phantom.labelled import PhantomStudy


class Clock:
    """Time that passes only by sleeping and working."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds


def test_percentiles_of_a_series():
    found = figures([3.0, 1.0, 2.0, 10.00049])
    assert (found["n"], found["p50"], found["max"]) == (4, 2.5, 10.0)
    assert found["p90"] == pytest.approx(3 + 0.7 * 7, abs=1e-3)
    assert found["samples_ms"] == [3.0, 1.0, 2.0, 10.0]


def test_spread_is_in_shares_of_the_median():
    assert spread(list(np.linspace(90, 110, 101))) == pytest.approx(0.16)
    assert spread([7.0]) == 0


@pytest.mark.parametrize(("runs", "seconds", "rounds"), [(3, 1e9, 3), (1000, 10.0, 5), (5, 1e-9, 1)])
def test_rounds_end_by_number_or_by_time(runs, seconds, rounds):
    """A round takes 2 s of work, and rests that count too."""
    clock = Clock()
    works = {"a": lambda: clock.sleep(1.5), "b": lambda: clock.sleep(0.5)}
    found = in_turn(works, Limit(runs, seconds, clock), clock=clock, sleep=clock.sleep)
    assert found == {"a": pytest.approx([1500] * rounds), "b": pytest.approx([500] * rounds)}
    assert clock.now - 100 == pytest.approx(rounds * (2 + 2 * SETTLE_S))


def test_all_have_their_turn_in_an_order_that_changes():
    clock, ran = Clock(), []
    works = {name: (lambda name=name: ran.append(name)) for name in "abc"}
    in_turn(works, Limit(20, 1e9, clock), clock=clock, sleep=clock.sleep)
    turns = ["".join(ran[at : at + 3]) for at in range(0, 60, 3)]
    assert {"".join(sorted(turn)) for turn in turns} == {"abc"}
    assert len(set(turns)) > 3


def test_what_is_noted_is_not_timed():
    clock, seen = Clock(), []

    def note(name, result):
        seen.append((name, result))
        clock.sleep(50)

    found = in_turn({"a": lambda: 7}, Limit(2, 1e9, clock), note, clock, clock.sleep)
    assert (found, seen) == ({"a": [0.0, 0.0]}, [("a", 7)] * 2)


def test_arrivals_are_of_the_asked_rate_and_the_same_each_time():
    found = arrivals(20.0, 50.0, 1)
    assert found == arrivals(20.0, 50.0, 1) == sorted(found)
    assert len(found) == 1000
    assert 0 <= found[0] <= found[-1] <= 50
    gaps = np.diff(found)
    assert np.mean(gaps) == pytest.approx(0.05, rel=0.05)
    assert np.std(gaps) == pytest.approx(np.mean(gaps), rel=0.15)  # exponential gaps, not even ones
    assert len(arrivals(0.01, 1.0, 1)) == 5


def test_latency_counts_from_the_intended_arrival():
    """A server that stops for 10 s: those who wait meanwhile are counted with their waiting (no omission)."""
    clock = Clock()
    durations = iter([1.0, 10.0, 1.0, 1.0, 1.0])
    served = open_loop([0, 2, 4, 6, 30], lambda worker: clock.sleep(next(durations)), 1, clock, clock.sleep)
    assert served.latencies_ms == pytest.approx([1000, 10_000, 9000, 8000, 1000])
    assert served.seconds == pytest.approx(31)
    assert served.per_s == pytest.approx(5 / 31)


def test_a_queue_grows_as_lindley_has_it():
    """W(n+1) = max(0, W(n) + service - gap)."""
    clock, rng = Clock(), np.random.default_rng(3)
    times, services = np.cumsum(rng.exponential(1, 200)), rng.uniform(0, 1.8, 200)
    left = iter(services)
    served = open_loop(list(times), lambda worker: clock.sleep(next(left)), 1, clock, clock.sleep)
    wait, expected = 0.0, []
    for number, service in enumerate(services):
        expected.append(1000 * (wait + service))
        gap = times[number + 1] - times[number] if number + 1 < len(times) else 0
        wait = max(0.0, wait + service - gap)
    assert served.latencies_ms == pytest.approx(expected)


def test_a_closed_loop_leaves_waiting_out_and_ends_by_time():
    clock = Clock()
    served = closed_loop(lambda worker: clock.sleep(0.4), 1, 1.0, clock)
    assert served.latencies_ms == pytest.approx([400] * 3)
    assert served.per_s == pytest.approx(2.5)


def test_several_workers_serve_each_arrival_once_and_their_errors_come_through():
    seen = []
    served = open_loop([0.0] * 20, seen.append, 4)
    assert len(seen) == 20
    assert len(served.latencies_ms) == 20
    assert min(served.latencies_ms) > 0

    def fail(worker):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        closed_loop(fail, 2, 1.0)


def write(path: Path, text: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n", encoding="ascii")


def test_rapl_adds_the_packages_and_counts_through_their_end(tmp_path):
    for number, joules in enumerate((5, 900)):
        write(tmp_path / f"powercap/intel-rapl:{number}/energy_uj", joules * 10**6)
        write(tmp_path / f"powercap/intel-rapl:{number}/max_energy_range_uj", 1000 * 10**6 - 1)
    write(tmp_path / "powercap/intel-rapl:0:0/energy_uj", 1)  # cores, which are part of a package
    meter, reason = open_meter(tmp_path)
    assert isinstance(meter, Rapl)
    assert (meter.source, reason) == ("RAPL, 2 packages", "")
    meter.start()
    write(tmp_path / "powercap/intel-rapl:0/energy_uj", 25 * 10**6)
    write(tmp_path / "powercap/intel-rapl:1/energy_uj", 50 * 10**6)
    assert meter.stop() == pytest.approx(20 + 150)


def rails(root, *labels):
    for number, label in enumerate(labels, 1):
        write(root / f"hwmon/hwmon3/in{number}_label", label)
        write(root / f"hwmon/hwmon3/in{number}_input", 5000)
        write(root / f"hwmon/hwmon3/curr{number}_input", 1000 * number)
    write(root / "hwmon/hwmon3/name", "ina3221")
    write(root / "hwmon/hwmon1/name", "nvme")


@pytest.mark.parametrize(
    ("labels", "watts", "source"),
    [
        (("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"), 5.0, "INA3221, VDD_IN"),
        (("VDD_GPU_SOC", "VDD_CPU_CV"), 15.0, "INA3221, VDD_GPU_SOC + VDD_CPU_CV"),
    ],
)
def test_a_jetsons_rails(tmp_path, labels, watts, source):
    rails(tmp_path, *labels)
    meter, _ = open_meter(tmp_path)
    assert isinstance(meter, Sensors)
    assert (meter.watts(), meter.source) == (watts, source)


def test_power_is_summed_up_over_time(tmp_path):
    rails(tmp_path, "VDD_IN")
    clock = Clock()
    files = tmp_path / "hwmon/hwmon3"
    meter = Sensors([("VDD_IN", files / "in1_input", files / "curr1_input")], clock)
    meter.start()
    clock.sleep(4)
    assert meter.stop() == pytest.approx(20)


def test_a_machine_without_meters_says_so(tmp_path):
    meter, reason = open_meter(tmp_path)
    assert meter is None
    assert "no RAPL" in reason
    (tmp_path / "powercap/intel-rapl:0").mkdir(parents=True)
    meter, reason = open_meter(tmp_path)
    assert meter is None
    assert "cannot read the RAPL counters" in reason


def test_joules_of_a_study():
    clock = Clock()

    class Meter:
        source = "made up"

        def start(self):
            self.at = clock()

        def stop(self):
            return 8.0 * (clock() - self.at)

    found = energy(Meter(), lambda: clock.sleep(0.5), 4.0, clock, clock.sleep)
    assert (found["studies"], found["joules_per_study"], found["watts"], found["idle_watts"]) == (8, 4.0, 8.0, 8.0)


def test_memory_of_a_process(tmp_path):
    write(tmp_path / "status", "VmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t1")
    assert memory_bytes(tmp_path / "status") == {"resident_bytes": 2**20, "peak_bytes": 2**21}
    assert memory_bytes(tmp_path / "none") == {"resident_bytes": None, "peak_bytes": None}


def test_memory_is_the_median_of_processes(monkeypatch):
    peaks = {False: [90, 70, 400], True: [50, 40, 60]}

    @contextmanager
    def process(asked):
        peak = peaks[asked["networks"]].pop()
        line = {"memory": {"resident_bytes": peak - 1, "peak_bytes": peak, "device_bytes": None}}
        yield iter([line] if asked["networks"] else [{"steps_ms": {}}, line])

    monkeypatch.setattr(starts, "_process", process)
    subject = Subject("b", "cpu", {}, PhantomStudy([], {}, {}))
    found = starts.memory(subject, "cpu", None, 3)
    assert found["study"] == {
        "resident_bytes": 89,
        "peak_bytes": 90,
        "device_bytes": None,
        "peaks_bytes": [400, 70, 90],
    }
    assert (found["networks"]["peak_bytes"], found["own_peak_bytes"], found["reason"]) == (50, 40, None)


def test_clocks_and_governor(tmp_path):
    assert set(settings(tmp_path, tmp_path).values()) == {None}
    write(tmp_path / "cpuinfo", "processor : 0\ncpu MHz\t\t: 2445.404")
    assert settings(tmp_path, tmp_path)["clock_mhz"] == 2445
    for name, text in {
        "scaling_cur_freq": 1500000,
        "cpuinfo_max_freq": 3700000,
        "scaling_governor": "powersave",
    }.items():
        write(tmp_path / "cpu0/cpufreq" / name, text)
    write(tmp_path / "intel_pstate/no_turbo", 1)
    known = {"clock_mhz": 1500, "most_clock_mhz": 3700, "governor": "powersave", "turbo": False}
    assert settings(tmp_path, tmp_path) == known


def test_what_other_programs_took(tmp_path):
    watch = Watch(tmp_path)
    assert watch.conditions(2)["busy_elsewhere"] is None  # no /proc/stat
    write(tmp_path / "stat", "cpu  0 0 0 1000 0 0 0 0 0 0")
    watch = Watch(tmp_path)
    write(tmp_path / "stat", "cpu  900000 0 100000 2000 0 0 0 500000 0 0")
    found = watch.conditions(2)
    assert found["busy_elsewhere"] > found["stolen"] > 1


def test_children_are_no_other_programs(tmp_path):
    """A process that decodes for this one, which two processors of four were busy with."""
    write(tmp_path / "stat", "cpu  0 0 0 1000 0 0 0 0 0 0")
    watch = Watch(tmp_path)
    write(tmp_path / "stat", "cpu  900000 0 100000 2000 0 0 0 0 0 0")
    child = f"77 (a (strange) name) S {os.getpid()} 1 1 0 -1 0 0 0 0 0 900000 100000 0 0 20 0"
    write(tmp_path / "77/stat", child)
    write(tmp_path / "78/stat", child.replace(f"S {os.getpid()}", "S 1"))
    assert watch.conditions(4)["busy_elsewhere"] == 0


@pytest.mark.parametrize(
    ("load", "elsewhere", "stolen", "restless", "said"),
    [
        (0.4, 0.01, 0.0, 0.1, []),
        (None, None, None, None, []),
        (3.0, 0.01, 0.0, 0.1, ["load average 3"]),
        (0.4, 0.3, 0.2, 0.1, ["30%", "20%"]),
        (0.4, 0.01, 0.0, 0.5, ["varied by 50%"]),
    ],
)
def test_a_loaded_or_restless_machine_is_warned_of(load, elsewhere, stolen, restless, said):
    conditions = {"load_average": [load, 9.0], "busy_elsewhere": elsewhere, "stolen": stolen}
    found = warnings_of(conditions, restless, 2)
    assert len(found) == len(said)
    assert all(words in text and "quiet machine" in text for words, text in zip(said, found, strict=True))
