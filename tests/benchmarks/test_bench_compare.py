"""Two programs' records against each other: ratios, intervals, and a check that noise alone does not fail."""

from __future__ import annotations

import json

import numpy as np
import pytest

from spinescore.benchmarks.bench.compare import compare, ratio_interval, text
from spinescore.benchmarks.harness.timing import figures
from spinescore.runtime import cli
from spinescore.runtime.verbs import UsageError


def record(whole_ms, second=0, **changes):
    steady = {"whole": figures(whole_ms), "networks": figures([10.0] * 5), "stages": {}}
    device = {"engine": "openvino 1", "precision": "fp32"}
    result = {"bundle": {"name": "tiny"}, "device": device, "steady": steady, "starts": None, "warnings": []}
    found = {
        "schema": "spinescore.latency/2",
        "date": f"2026-01-01T00:00:{second:02}+00:00",
        "hardware": {"cpu": "CPU", "cores": 2},
        "study": {"files": [{"sha256": "0" * 64}]},
        "results": [result],
    }
    return {**found, **changes}


def noise(rng, level, count=60):
    """Return noisy values in which slow moments follow one another."""
    slow = np.repeat(rng.uniform(0.9, 1.3, count // 6), 6)
    return list(level * slow * rng.uniform(0.95, 1.1, count))


def test_the_ratio_is_of_medians_and_the_interval_holds_it():
    rng = np.random.default_rng(0)
    before, after = noise(rng, 100), noise(rng, 120)
    ratio, (low, high), own = ratio_interval([(before, after)], 2000)
    assert ratio == pytest.approx(np.median(after) / np.median(before))
    assert own == [pytest.approx(ratio)]
    assert low < ratio < high
    assert ratio_interval([(before, after)], 2000) == (ratio, (low, high), own)


def test_series_that_do_not_vary_have_no_interval():
    assert ratio_interval([([10.0] * 30, [11.0] * 30)] * 3, 200)[1] == pytest.approx((1.1, 1.1))


def test_of_several_pairs_the_geometric_mean():
    pairs = [([10.0] * 9, [20.0] * 9), ([10.0] * 9, [5.0] * 9)]
    ratio, (low, high), own = ratio_interval(pairs, 2000)
    assert (ratio, own) == (pytest.approx(1.0), [2.0, 0.5])
    assert (low, high) == (pytest.approx(0.5), pytest.approx(2.0))


def test_the_interval_covers_the_truth():
    """Of 100 comparisons of a program that is 1.1 times as slow, most intervals hold 1.1."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(100):
        pairs = [(noise(rng, 100), noise(rng, 110)) for _ in range(5)]
        _, (low, high), _ = ratio_interval(pairs, 300)
        held += low <= 1.1 <= high
    assert held >= 80


def alternate(rng, before, after, pairs=4, drift=0.0):
    found = []
    for number in range(2 * pairs):
        level = (after if number % 2 else before) * (1 + drift * rng.uniform(-1, 1))
        found.append(record(noise(rng, level), number))
    return found


def test_noise_alone_never_fails():
    """The same program on a machine whose hours differ by up to 15 % either way: 200 checks, none fails."""
    rng = np.random.default_rng(2)
    assert not any(compare(alternate(rng, 100, 100, drift=0.15), 200, 1.10)["slower"] for _ in range(200))


def test_a_slower_program_fails():
    rng = np.random.default_rng(3)
    found = compare(alternate(rng, 100, 150), 500, 1.10)
    assert found["slower"]
    row = next(row for row in found["rows"] if row["series"] == "whole study")
    assert row["slower"]
    assert row["interval"][0] > 1.10
    assert not compare(alternate(rng, 150, 100), 500, 1.10)["slower"]


def test_a_slow_second_half_of_an_hour_is_no_slower_program():
    """Every pair is slower than the one before, and so is its second half: the machine slows down."""
    levels = [100, 115, 130, 150, 170, 195, 220, 250]
    rng = np.random.default_rng(6)
    records = [record(noise(rng, level), number) for number, level in enumerate(levels)]
    assert not compare(records, 500, 1.05)["slower"]


def test_one_pair_that_is_not_slower_is_enough_to_pass():
    rng = np.random.default_rng(4)
    records = alternate(rng, 100, 200, pairs=5)
    records[5] = record(noise(rng, 100), 5)
    assert not compare(records, 500, 1.10)["slower"]


@pytest.mark.parametrize(
    ("records", "limit", "said"),
    [
        ([record([1.0])], None, "pairs"),
        ([record([1.0])] * 3, None, "pairs"),
        ([record([1.0])] * 2, 1.1, "at least 4 pairs"),
        ([record([1.0], second) for second in (7, 6, 5, 4, 3, 2, 1, 0)], 1.1, "not taken in this order"),
        ([record([1.0]), record([1.0], study={"files": [{"sha256": "1"}]})], None, "different studies"),
        ([record([1.0]), record([1.0], hardware={"cpu": "other", "cores": 2})] * 4, 1.1, "different machines"),
        ([record([1.0], results=[])] * 2, None, "in common"),
    ],
)
def test_records_that_cannot_be_judged(records, limit, said):
    with pytest.raises(UsageError, match=said):
        compare(records, 200, limit)


def test_a_loaded_machine_is_told_and_fails_nothing():
    first = record([1.0, 2.0])
    first["results"][0]["warnings"] = ["loaded"]
    assert "loaded" in " ".join(compare([first, record([1.0], 1)], 200, None)["notes"])
    with pytest.raises(UsageError, match="cannot judge"):
        compare([first, record([1.0], 1)] * 4, 200, 1.1)


def test_another_engine_is_told_and_may_be_judged():
    records = [record([2.0], second) for second in range(8)]
    for after in records[1::2]:
        after["results"][0]["device"] = {"engine": "openvino 1", "precision": "int8"}
    found = compare(records, 200, 1.1)
    assert "tiny: openvino 1 fp32 before, openvino 1 int8 after." in text(found)


def write_all(folder, records):
    paths = [folder / f"{number}.json" for number in range(len(records))]
    for path, found in zip(paths, records, strict=True):
        path.write_text(json.dumps(found), encoding="utf-8")
    return [str(path) for path in paths]


def test_the_command(tmp_path, capsys):
    rng = np.random.default_rng(5)
    same, slower = alternate(rng, 100, 100), alternate(rng, 100, 150)
    options = ["--fail-above", "1.10", "--bootstrap", "200"]
    assert cli.main(["bench", "compare", *write_all(tmp_path, same), *options]) == 0
    assert "not shown to be slower" in capsys.readouterr().out
    paths = write_all(tmp_path, slower)
    assert cli.main(["bench", "compare", *paths, *options]) == 5
    assert "SLOWER" in capsys.readouterr().out
    assert cli.main(["bench", "compare", *paths[:2]]) == 0
    assert "several, in turn" in capsys.readouterr().out
    assert cli.main(["bench", "compare", *paths, *options, "--json"]) == 5
    assert json.loads(capsys.readouterr().out)["schema"] == "spinescore.latency-comparison/1"


@pytest.mark.parametrize("options", [["--fail-above", "0.9"], ["--fail-above", "nan"], ["--bootstrap", "1"]])
def test_options_that_cannot_be(tmp_path, options):
    assert cli.main(["bench", "compare", *write_all(tmp_path, [record([1.0])] * 2), *options]) == 2
