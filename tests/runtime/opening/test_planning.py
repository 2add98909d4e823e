"""Which setting a plan takes, on times that were recorded once: two cores of an AMD EPYC, two uncompressed phantoms."""

from __future__ import annotations

from dataclasses import replace

import pytest

from helpers.tiny import listed, manifest
from spinescore.runtime import EngineError
from spinescore.runtime.engines.choice import REFERENCE, EngineChoice
from spinescore.runtime.manifest import Manifest
from spinescore.runtime.opening.plan import Candidate, Setting
from spinescore.runtime.opening.plansearch import (
    SCREENING_RUNS,
    AcceptedEngine,
    accuracy,
    least_runs,
    percentile_ms,
    search,
    settings,
    shortfall,
)
from spinescore.runtime.scoring.budget import Effort

FP32 = AcceptedEngine(REFERENCE)
BF16 = AcceptedEngine(EngineChoice("openvino", "bf16"), 216, 0, 0.01)
INT8 = AcceptedEngine(EngineChoice("openvino", "int8"), 216, 1, 0.04)
TWICE = Manifest.from_dict({**listed(manifest()), "localizer": {**listed(manifest())["localizer"], "passes": 2}})

# Medians of the shipped bundle in milliseconds, by passes and antialias.
RECORDED = {
    "fp32": {(2, True): 160.0, (2, False): 150.0, (1, True): 118.0, (1, False): 110.0},
    "bf16": {(2, True): 92.0, (2, False): 86.0, (1, True): 67.0, (1, False): 60.0},
    "int8": {(2, True): 61.0, (2, False): 57.0, (1, True): 44.0, (1, False): 38.0},
}


AVERAGED = Manifest.from_dict(
    {
        **TWICE.to_dict(),
        "localizer": {
            **TWICE.to_dict()["localizer"],
            "test_time": {"scales": [1.0], "flip": True, "flip_shift": True},
        },
    }
)


class Recorder:
    """Gives recorded times; every 50th study takes twice as long. Notes what was asked for."""

    def __init__(self):
        self.asked = []

    def __call__(self, setting, runs):
        self.asked.append((setting, runs))
        effort = setting.effort
        median = RECORDED[setting.precision][effort.passes, effort.antialias]
        median *= (1.0 if setting.threads == 2 else 1.7) * (1.1 if effort.apart else 1.0)
        first = sum(count for one, count in self.asked[:-1] if one == setting)
        return f"{setting.engine} 1.0", [median * (2 if (first + n) % 50 == 49 else 1) for n in range(runs)]


def pairs(*engines, kind="cpu", cores=2):
    return [(engine, setting) for engine in engines for setting in settings(engine, TWICE, kind, cores)]


def chosen(budget_ms, percentile=95.0, runs=100, engines=(FP32, BF16, INT8)):
    recorder = Recorder()
    found = search(pairs(*engines), budget_ms, percentile, runs, recorder)
    return found, recorder, None if found.choice is None else found.candidates[found.choice]


@pytest.mark.parametrize(
    ("budget_ms", "precision", "passes", "antialias"),
    [
        (200, "fp32", 2, True),
        (159, "bf16", 2, True),  # a less exact engine before a pass less
        (91, "int8", 2, True),
        (60, "int8", 2, False),
        (56, "int8", 1, True),
        (43, "int8", 1, False),
    ],
)
def test_the_most_accurate_that_fits_with_the_fastest_threads(budget_ms, precision, passes, antialias):
    found, recorder, best = chosen(budget_ms)
    assert best.setting == Setting(best.setting.engine, precision, 2, Effort(passes, antialias))
    assert (best.runs, best.tail_ms) == (100, RECORDED[precision][passes, antialias])
    assert best.framework == f"{best.setting.engine} 1.0"
    fuller = [setting for setting, runs in recorder.asked if runs > SCREENING_RUNS]
    assert {(setting.effort.passes, setting.effort.antialias) for setting in fuller} == {
        (passes, antialias)
    }  # what is too slow is measured no further
    assert all(one.tail_ms is None for one in found.candidates if one.setting not in fuller)


def test_the_percentile_decides():
    _, _, best = chosen(200, percentile=99.0)
    assert (best.setting.precision, best.tail_ms) == ("bf16", 184.0)  # FP32 takes 320 ms in 2 of 100 studies
    _, _, best = chosen(200, percentile=98.0)
    assert (best.setting.precision, best.tail_ms) == ("fp32", 160.0)


def test_what_cannot_keep_the_budget_any_more_is_given_up():
    found, _, _ = chosen(170, percentile=99.5, runs=400, engines=(FP32,))
    slow = next(one for one in found.candidates if one.setting == Setting("onnxruntime", "fp32", 2, Effort(2)))
    assert (slow.tail_ms, slow.runs) == (None, 160)  # the third late study; two of 400 may be late


@pytest.mark.parametrize(("budget_ms", "half"), [(20, False), (40, True)])
def test_where_nothing_fits_it_says_by_how_much_and_what_would(budget_ms, half):
    found, _, best = chosen(budget_ms, percentile=99.0)
    assert best is None
    text = shortfall(found, budget_ms, 99.0)
    assert (
        f"Nothing keeps {budget_ms} ms at the 99th percentile. The nearest, openvino int8, 2 threads, 1 pass, " in text
    )
    assert f"takes 76.0 ms: {76 - budget_ms}.0 ms too long ({76 / budget_ms:.2f} times the budget)" in text
    assert "--budget-ms 76" in text
    assert ("the fastest median is 38.0 ms" in text) == half


def test_an_engine_that_does_not_open_is_left_out():
    recorder = Recorder()

    def measure(setting, runs):
        if setting.precision == "int8":
            raise EngineError("OpenVINO cannot be imported.")
        return recorder(setting, runs)

    found = search(pairs(FP32, INT8), 1000, 95, 20, measure)
    assert found.left_out == ("OpenVINO cannot be imported.",)
    assert {one.setting.precision for one in found.candidates} == {"fp32"}
    with pytest.raises(EngineError, match=r"No engine of this bundle could be measured. OpenVINO cannot"):
        search(pairs(INT8), 1000, 95, 20, measure)


def test_the_order_of_accuracy():
    def candidate(engine, passes=2, antialias=True, localizer=None):
        setting = Setting(engine.choice.engine, engine.choice.precision, None, Effort(passes, antialias), localizer)
        return Candidate(setting, "", engine.corners, engine.grade_flips, engine.median_shift_px, 1, 1.0, None)

    order = [
        candidate(FP32),
        candidate(BF16),
        candidate(replace(BF16, median_shift_px=0.02)),
        candidate(INT8),
        candidate(FP32, localizer="w32"),
        candidate(INT8, localizer="w32"),
        candidate(FP32, localizer="w18"),
        candidate(FP32, antialias=False),
        candidate(INT8, antialias=False),
        candidate(FP32, 1),
        candidate(INT8, 1),
        candidate(INT8, 1, localizer="w18"),
        candidate(FP32, 1, False),
    ]
    localizers = (None, "w32", "w18")
    assert sorted([*order[5:], *order[:5]], key=lambda one: accuracy(one, localizers)) == order


def test_settings_of_a_cpu_and_of_a_gpu():
    on_cpu = settings(FP32, TWICE, "cpu", 8)
    assert len(on_cpu) == len(set(on_cpu)) == 2 * 2 * 4
    assert {setting.threads for setting in on_cpu} == {8, 4}
    on_gpu = settings(BF16, TWICE, "cuda", 8)
    assert [(setting.threads, setting.effort) for setting in on_gpu] == [
        (None, Effort(2)),
        (None, Effort(2, False)),
        (None, Effort(1)),
        (None, Effort(1, False)),
    ]
    assert len(settings(FP32, Manifest.from_dict(listed(manifest())), "cpu", 1)) == 1 * 2 * 2


def test_percentiles_are_times_that_were_measured():
    times = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [percentile_ms(times, p) for p in (0, 20, 50, 80, 81, 100)] == [1, 1, 3, 4, 5, 5]
    assert [least_runs(p) for p in (50, 90, 99, 99.5)] == [2, 10, 100, 200]


def test_averaging_is_the_first_that_a_plan_leaves_out():
    """Each pass takes 1.8 times as long with it; the order of the others stays."""
    ways = [(FP32, setting) for setting in settings(FP32, AVERAGED, "cpu", 1)]
    assert {setting.effort.test_time for _, setting in ways} == {True, False}
    assert not any(setting.effort.test_time for setting in settings(FP32, TWICE, "cpu", 1))

    def measure(setting, runs):
        effort = setting.effort
        passes = RECORDED["fp32"][effort.passes, effort.antialias]
        return "onnxruntime 1.0", [passes * (1.8 if effort.test_time else 1.0)] * runs

    taken = []
    for budget_ms in (300.0, 280.0, 170.0, 155.0, 119.0, 111.0):
        found = search(ways, budget_ms, 95.0, 20, measure)
        effort = found.candidates[found.choice].setting.effort
        taken.append((effort.passes, effort.antialias, effort.test_time))
    two_plain, two_single = (2, True, False), (2, False, False)
    one = (1, True, False), (1, False, False)
    assert taken == [(2, True, True), two_plain, two_plain, two_single, *one]
    assert "1 pass, averaged" in str(Setting("onnxruntime", "fp32", None, Effort(1, test_time=True)))
