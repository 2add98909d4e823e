"""The acceptance gate, its records, and what opens because of them. ONNX Runtime in FP16 is the engine to accept."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from helpers.golden_bundle import write_golden_bundle
from helpers.scoring import CERVICAL, LUMBAR
from helpers.tiny import write_bundle
from spinescore.runtime import BundleError, EngineError, Scorer, acceptance, cli, devices
from spinescore.runtime.acceptance import (
    AcceptanceRecord,
    Figures,
    find_records,
    flips_at_most,
    keeping,
    mark_failed,
    verify_command,
    write_record,
)
from spinescore.runtime.acceptance.gate import verify_device
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices import hardware_of
from spinescore.runtime.engines import Gpu
from spinescore.runtime.engines.choice import EngineChoice
from spinescore.runtime.machine.processor import processor_kind
from spinescore.runtime.manifest.tolerances import Tolerances
from spinescore.runtime.opening.request import Request

HALF = EngineChoice("onnxruntime", "fp16")
STUDY = [CERVICAL.radiograph, LUMBAR.radiograph]


@pytest.fixture(scope="module")
def accepted(tmp_path_factory):
    """A bundle and the record of FP16 on ONNX Runtime that the gate made, written nowhere near the bundle."""
    bundle = Bundle.open(write_golden_bundle(tmp_path_factory.mktemp("golden") / "b"))
    (outcome,) = verify_device(bundle, "cpu", *("onnxruntime", "fp16"), folder=tmp_path_factory.mktemp("records"))
    return bundle, outcome.record


@pytest.fixture
def bundle(accepted, tmp_path, monkeypatch):
    """The bundle, whose records of other tests are elsewhere."""
    monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path / "cache"))
    yield accepted[0]
    for path in accepted[0].folder.glob("acceptance/*"):
        path.unlink()


def fast(record: AcceptanceRecord, share: float = 0.5) -> AcceptanceRecord:
    return replace(record, networks_ms={name: share * ms for name, ms in record.reference_ms.items()})


def opened(bundle, **options) -> tuple[str, str, tuple[str, ...]]:
    """Engine, precision and warnings of a report."""
    with Scorer.open(bundle.folder, options.pop("device", "cpu"), **options) as scorer:
        report = scorer.score(STUDY)
    return report.device.engine.split()[0], report.device.precision, report.warnings


@pytest.mark.parametrize(
    "changes", [{}, {"heads": "separate", "grader.head": "corner4"}, {"grader.head": "bridge+grades"}], ids=str
)
def test_what_the_gate_finds(tmp_path, changes):
    bundle = Bundle.open(write_golden_bundle(tmp_path / "b", **changes))
    (outcome,) = verify_device(bundle, "cpu", "onnxruntime", "fp16")
    record, figures = outcome.record, outcome.record.figures
    assert (outcome.choice, outcome.reason, record.passed) == (HALF, "", True)
    assert outcome.path.parent == bundle.folder / "acceptance"
    assert AcceptanceRecord.read(outcome.path) == replace(record, sha256=record.digest())
    assert record.bundle["sha256"] == bundle.sha256
    assert record.device["hardware"] == processor_kind()
    assert record.networks == {
        name: entry.sha256 for name, entry in bundle.manifest.files.items() if entry.precision == "fp16"
    }
    separate = changes.get("heads") == "separate"
    assert (figures.points, figures.corners, figures.grade_flips) == (4 * 12 if separate else 3 * 12, 24, 0)
    assert figures.total == figures.reference_total > 0
    assert 0 < figures.heatmap_difference < 0.05
    assert 0 < figures.logit_difference < 0.05  # ARM also computes in half, x86-64 only stores in it
    assert 0 <= figures.median_shift_of_spacing <= figures.median_shift_px
    assert figures.reference_difference < 1e-5
    assert record.networks_ms.keys() == record.reference_ms.keys()
    assert all(ms > 0 for ms in (*record.networks_ms.values(), *record.reference_ms.values()))


@pytest.mark.parametrize(("half", "message"), [("wrong", "grade flips"), ("broken", "logit difference 1e\\+09")])
def test_a_wrong_engine_is_not_accepted(tmp_path, capsys, half, message):
    folder = str(write_golden_bundle(tmp_path / "b", half))
    command = ["bundle", "verify", folder, "--device", "cpu", "--engine", "onnxruntime"]
    assert cli.main([*command, "--json"]) == 4
    (found,) = json.loads(capsys.readouterr().out)
    assert found["record"]["passed"] is False
    assert message.replace("\\", "") in found["reason"]
    with pytest.raises(EngineError, match=f"onnxruntime fp16 was not accepted for bundle tiny.*{message}"):
        Scorer.open(folder, "cpu", precision="fp16")
    with Scorer.open(folder, "cpu") as scorer:
        assert scorer.score(STUDY).device.precision == "fp32"
    assert cli.main(command) == 4
    assert "NOT accepted" in capsys.readouterr().out


def test_nothing_but_the_reference_opens_without_a_record(bundle, accepted):
    asked = {"engine": "onnxruntime", "precision": "fp16"}
    with pytest.raises(
        EngineError, match=r"No onnxruntime fp16 has been accepted.*run: spinescore bundle verify .*cpu"
    ):
        Scorer.open(bundle.folder, "cpu", **asked)
    assert opened(bundle)[:2] == ("onnxruntime", "fp32")
    assert opened(bundle, **asked, require_acceptance=False)[:2] == ("onnxruntime", "fp16")
    write_record(accepted[1], bundle)
    assert opened(bundle, precision="fp16") == ("onnxruntime", "fp16", ())


def test_the_fastest_by_its_record_is_opened(bundle, accepted):
    write_record(fast(accepted[1]), bundle)
    assert opened(bundle) == ("onnxruntime", "fp16", ())
    assert opened(bundle, precision="fp32")[1] == "fp32"
    assert opened(bundle, device="auto")[1] == "fp16"
    write_record(fast(accepted[1], 1.5), bundle)
    assert opened(bundle)[1] == "fp32"
    assert opened(bundle, precision="fp16")[1] == "fp16"


def test_of_two_records_the_later_holds(bundle, accepted):
    write_record(fast(accepted[1]), bundle)
    figures = replace(accepted[1].figures, grade_flips=20)
    later = replace(accepted[1], figures=figures, passed=False, date=acceptance.utc_now())
    write_record(later, bundle, keeping._cached(bundle))
    assert opened(bundle)[1] == "fp32"


@pytest.mark.parametrize("date", ["2026-01-01T00:00:00.000+00:00", "2999-01-01"])
def test_a_self_test_that_failed_outlives_the_record_whatever_its_date(bundle, accepted, date):
    record = replace(fast(accepted[1]), date=date)
    write_record(record, bundle)
    mark_failed(record, bundle, "it computed wrongly")
    found = find_records(bundle, "cpu", processor_kind())
    assert (found.accepted, [one.self_test for one in found.failed]) == ((), ["it computed wrongly"])
    assert AcceptanceRecord.read(next((bundle.folder / "acceptance").glob("*"))).faults(Tolerances())
    copy = write_record(record, bundle, keeping._cached(bundle))  # the record as it was, found after the other
    assert find_records(bundle, "cpu", processor_kind()).accepted == ()
    copy.unlink()
    with pytest.raises(EngineError, match=r"was not accepted for bundle tiny .*: it computed wrongly"):
        Scorer.open(bundle.folder, "cpu", precision="fp16")
    (failed,) = find_records(bundle, "cpu", processor_kind()).failed
    assert re.fullmatch(r"failed its self-test on \d{4}-\d\d-\d\d", failed.refusal)
    assert replace(record, passed=False).refusal == "NOT accepted"


def test_a_mark_that_cannot_be_written_stops_nothing(bundle, accepted, monkeypatch):
    monkeypatch.setattr(keeping, "write_atomic", lambda path, text: (_ for _ in ()).throw(OSError("read-only")))
    mark_failed(accepted[1], bundle, "it computed wrongly")


def test_an_altered_record_is_not_accepted(bundle, accepted):
    path = write_record(fast(accepted[1]), bundle)
    whole = path.read_text(encoding="utf-8")
    for text in (whole.replace('"grade_flips": 0', '"grade_flips": 9'), whole[:-9], whole.replace("date", "data"), ""):
        path.write_text(text, encoding="utf-8")
        engine, precision, warnings = opened(bundle)
        assert (engine, precision) == ("onnxruntime", "fp32")
        assert [warning for warning in warnings if str(path) in warning and "spinescore bundle verify" in warning]


def test_records_of_another_kind_of_cpu_bundle_or_file_do_not_count(bundle, accepted):
    record = fast(accepted[1])
    others = [
        replace(record, device={**record.device, "hardware": "x86-64 mmx"}),
        replace(record, device={**record.device, "platform": "amiga-68000"}),
        replace(record, bundle={**record.bundle, "sha256": "0" * 64}),
        replace(record, networks=dict.fromkeys(record.networks, "0" * 64)),
        replace(record, networks={"../../outside.engine": "0" * 64}),
        replace(record, networks={}),
    ]
    for other in others:
        path = write_record(other, bundle)
        assert find_records(bundle, "cpu", processor_kind()).accepted == ()
        path.unlink()
    assert opened(bundle)[1] == "fp32"


def test_a_record_is_of_a_gpu_of_one_size(bundle, accepted, monkeypatch):
    """Every Orin has one name. A record that does not say which one it is of, as older ones, does not count."""
    nano, agx = (Gpu("Orin", (8, 7), count) for count in (8, 16))
    monkeypatch.setattr(devices, "first_gpu", lambda: nano)
    assert hardware_of("cuda") == "Orin with 8 multiprocessors"
    record = fast(accepted[1])
    for name, counts in (("Orin", False), (str(agx), False), (str(nano), True)):
        path = write_record(replace(record, device={**record.device, "kind": "cuda", "hardware": name}), bundle)
        assert bool(find_records(bundle, "cuda", hardware_of("cuda")).accepted) == counts
        path.unlink()


def test_another_version_of_the_engine_is_passed_over(bundle, accepted):
    write_record(replace(fast(accepted[1]), framework="onnxruntime 0.1"), bundle)
    engine, precision, (warning,) = opened(bundle)
    assert (engine, precision) == ("onnxruntime", "fp32")
    assert "was accepted with onnxruntime 0.1, this is onnxruntime 1." in warning
    with pytest.raises(EngineError, match=r"accepted with onnxruntime 0\.1"):
        Scorer.open(bundle.folder, "cpu", precision="fp16")


def test_the_bundles_own_tolerances_decide(bundle, accepted):
    record = fast(accepted[1])
    strict = replace(bundle.manifest, tolerances=Tolerances(logit_difference=0.0))
    write_record(record, bundle)
    assert find_records(bundle, "cpu", processor_kind()).accepted
    found = find_records(replace(bundle, manifest=strict), "cpu", processor_kind())
    assert (found.accepted, len(found.failed)) == ((), 1)


def test_where_records_lie(bundle, accepted, tmp_path):
    record = accepted[1]
    assert write_record(record, bundle).parent == bundle.folder / "acceptance"
    assert write_record(record, bundle, tmp_path / "here").parent == tmp_path / "here"
    shipped = Bundle.open("phantom-reference")
    cached = tmp_path / "cache" / "acceptance"
    assert write_record(record, shipped).parent == cached / shipped.sha256[:16]
    assert verify_command(shipped, "cpu") == "spinescore bundle verify phantom-reference --device cpu"
    blocked = write_bundle(tmp_path / "blocked")
    (blocked / "acceptance").write_text("a file where the folder would be", encoding="utf-8")
    other = Bundle.open(blocked)
    assert write_record(record, other).parent == cached / other.sha256[:16]


def test_a_tensorrt_engine_has_its_record_beside_it(bundle, accepted):
    record = replace(accepted[1], engine="tensorrt", networks={"engines/here/g.engine": "0" * 64})
    assert record.choice == EngineChoice("tensorrt", "fp16", "here")
    path = write_record(record, bundle)
    assert path.parent == bundle.folder / "engines" / "here"
    path.unlink()


def test_faults_are_named():
    figures = Figures(0.0, 12, 0.0, 0.2, 0.3, 0.0, 0.0, 200, 0.0, 2, 9, 12, 3)
    assert figures.faults(Tolerances()) == [
        "median shift px 0.2, at most 0.1",
        "grade flips 0.01, at most 0.005",
        "radiograph total 3, at most 2",
    ]
    assert "FP32 itself is 0.1" in replace(figures, reference_difference=0.1).faults(Tolerances())[-1]


@pytest.mark.parametrize(("flips", "corners"), [(0, 24), (1, 216), (36, 4800), (24, 24)])
def test_how_many_grades_may_flip_where_so_many_did(flips, corners):
    """The share at which so few flips are 1.96 standard deviations away."""
    share = flips_at_most(flips, corners)
    deviation = math.sqrt(share * (1 - share) / corners)
    assert share - flips / corners == pytest.approx(1.96 * deviation, abs=1e-6)
    assert flips / corners < share or share == pytest.approx(1)


def test_the_gate_needs_nothing_of_the_exporter(tmp_path):
    """An appliance has neither onnx nor tqdm."""
    folder = str(write_golden_bundle(tmp_path / "b"))
    code = (
        "import sys\nsys.modules.update(dict.fromkeys(('onnx', 'tqdm')))\nfrom spinescore.runtime import cli\n"
        "sys.exit(cli.main(['bundle', 'verify', sys.argv[1], '--device', 'cpu', '--engine', 'onnxruntime']))"
    )
    found = subprocess.run([sys.executable, "-W", "error", "-c", code, folder], capture_output=True, text=True)
    assert (found.returncode, "fp16  accepted" in found.stdout) == (0, True), found.stderr


def test_a_bundle_without_golden_inputs_cannot_be_accepted(tmp_path):
    with pytest.raises(BundleError, match="no golden inputs for the localizer"):
        verify_device(Bundle.open(write_bundle(tmp_path / "b")), "cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "tensorrt", "--device", "cpu"], "nothing to accept: .* has not tensorrt"),
        (["--precision", "int8", "--device", "cpu"], "has not int8"),
        (["--device", "cuda"], "Device cuda is not available"),
    ],
)
def test_what_cannot_be_verified(bundle, capsys, options, message):
    assert cli.main(["bundle", "verify", str(bundle.folder), *options]) == 4
    printed = capsys.readouterr()
    assert not printed.out
    assert re.search(message, printed.err)


@pytest.mark.parametrize("engine", ["tensorrt", "onnxruntime"])
def test_what_a_bundle_does_not_have(bundle, engine):
    with pytest.raises(EngineError, match=f"cannot be run with {engine} int8 on this CPU"):
        Scorer.open(bundle.folder, "cpu", engine=engine, precision="int8", require_acceptance=False)


def test_names_that_are_not_known(bundle):
    for options in ({"engine": "abacus"}, {"precision": "fp64"}, {"device": "tpu"}):
        with pytest.raises(ValueError, match=r"there is no \w+ '\w+'; choose one of"):
            Request(**{"device": "cpu", **options})


def test_command_line(bundle, capsys):
    command = ["bundle", "verify", str(bundle.folder), "--precision", "fp16", "--engine", "onnxruntime"]
    assert cli.main([*command, "--device", "auto"]) == 0
    printed = capsys.readouterr()
    assert "onnxruntime fp16  accepted" in printed.out
    assert "0 of 24 (< 13.8 %)" in printed.out
    assert "On the CPU. Device cuda is not available" in printed.err
