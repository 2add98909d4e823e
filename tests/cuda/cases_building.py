"""On the driver double: opening a scorer builds engines for its GPU in another process, and takes what was accepted."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace

import builder_on_double as builder
import pytest
from on_double import CONTROL, FOLDER, KERNELS, LARGEST_PX, assert_everything_freed, run, study

from helpers.golden_bundle import write_golden_bundle
from spinescore.runtime import EngineError, Scorer
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.doctor import examine
from spinescore.runtime.engines.places import engine_paths, failure
from spinescore.runtime.engines.sidecar import Sidecar
from spinescore.runtime.machine import child
from spinescore.runtime.opening import background, building
from spinescore.runtime.opening.request import Request

ENGINE = f"tensorrt {builder.VERSION}"
BUILDS = FOLDER / "builds"
GPU = "driver double with 16 multiprocessors"


def prepare(name="b", **changes):
    """A bundle's folder; engines of the double count as TensorRT's."""
    os.environ["SPINESCORE_CACHE"] = str(FOLDER / "cache")
    builder.install(KERNELS)
    return write_golden_bundle(FOLDER / name, "none", **changes)


def builders(mode):
    """From here on the builder works in this mode (`builder_on_double`)."""
    script = str(builder.__file__)
    child.worker_command = lambda module, request: [sys.executable, script, str(KERNELS), mode, str(FOLDER), request]


def opened(folder, device="auto", **options):
    return Scorer.open(folder, device, threads=1, largest_image_px=LARGEST_PX, **options)


def scored(scorer):
    report = scorer.score(study())
    assert report.total is not None
    return report.device.kind, report.device.engine, report.warnings


def built():
    return BUILDS.read_text(encoding="utf-8").split() if BUILDS.exists() else []


def case_built_and_accepted_before_it_scores():
    folder, said = prepare(), []
    builders("right")
    with opened(folder, build="no") as scorer:
        assert (scored(scorer)[0], built()) == ("cpu", [])
    with opened(folder, require_acceptance=False, engine="onnxruntime"):
        assert built() == []
    for device, build in (("cuda", "background"), ("auto", "now")):  # nothing works on that GPU meanwhile, so it waits
        with opened(folder, device, build=build, progress=said.append) as scorer:
            assert scored(scorer) == ("cuda", ENGINE, ())
            assert str(scorer.choice) == f"tensorrt fp16 ({builder.TARGET})"
    assert built() == ["right"]
    assert "building localizer.fp32.onnx" in said
    assert any("the reference" in line for line in said)
    for path in engine_paths(folder):
        assert path.is_relative_to(folder / "engines" / builder.TARGET)
    with pytest.raises(ValueError, match="there is no build 'later'"):
        opened(folder, build="later")
    assert_everything_freed()


def case_engines_of_several_sizes_are_accepted_and_score():
    """Each size is run by gate and self-test; an engine that lacks one of them is not taken."""
    folder = prepare(test_time=([1.0, 1.5], True, True))
    builders("right")
    with opened(folder, "cuda", build="now") as scorer:
        assert scored(scorer) == ("cuda", ENGINE, ())
    (path,) = [path for path in engine_paths(folder) if path.name.startswith("localizer")]
    sidecar = Sidecar.read(path)
    assert sidecar.sizes == ((256, 192), (384, 288))
    replace(sidecar, sizes=sidecar.sizes[:1]).write(path)
    with pytest.raises(EngineError, match=r"was not built for \(384, 288\)"):
        opened(folder, "cuda", engine="tensorrt", build="no")
    assert_everything_freed()


def case_each_localizer_is_built_and_accepted_when_it_is_first_opened():
    """The grader's engine is made again with the alternative's, so that the bundle's own is accepted again, too."""
    prepare()
    folder = write_golden_bundle(FOLDER / "several", "none", alternatives={"narrow": 1.0})
    (FOLDER / "go").touch()
    for mode, name, stems in (
        ("right", None, {"localizer", "grader-corners"}),
        ("waits", "narrow", {"localizer", "localizer-narrow", "grader-corners"}),
        ("fails", None, {"localizer", "localizer-narrow", "grader-corners"}),
        ("fails", "narrow", {"localizer", "localizer-narrow", "grader-corners"}),
    ):
        builders(mode)
        with opened(folder, localizer=name) as scorer:
            assert scored(scorer) == ("cuda", ENGINE, ())
            assert scorer.score(study()).bundle.localizer == name
        assert {path.name.split(".")[0] for path in engine_paths(folder)} == stems
    assert built() == ["right", "waits"]
    assert_everything_freed()


def case_built_in_the_background():
    """Into the cache, since the bundle's folder cannot be written; what works meanwhile is the CPU."""
    folder = prepare()
    (folder / "engines").write_text("a file where the folder would be", encoding="utf-8")
    builders("waits")
    with opened(folder, build="background") as scorer:
        kind, engine, (on_cpu, being_built) = scored(scorer)
        assert (kind, engine.split()[0]) == ("cpu", "onnxruntime")
        assert on_cpu.startswith("Scored on the CPU. No engine has been accepted")
        assert being_built == (f"Engines for {GPU} are being built ({builder.TARGET}); this was scored without them.")
        effort = scorer._views.efforts[-1]
        scorer.give(effort)
        (FOLDER / "go").touch()
        wait_for(lambda: scorer._session.engine._opening.build.finished)
        by_plan = ("By its plan the networks' inputs were sampled once a pixel.",)
        for _ in range(2):
            assert scored(scorer) == ("cuda", ENGINE, by_plan)
        assert scorer._views.efforts[0] == effort
    assert all(path.is_relative_to(FOLDER / "cache") for path in engine_paths(folder))
    with opened(folder, "cuda") as scorer:
        assert scored(scorer) == ("cuda", ENGINE, ())
    assert built() == ["waits"]
    assert_everything_freed()


def case_what_cannot_be_built_is_a_warning_and_not_tried_again():
    for mode, reason in (("fails", "no memory."), ("crashes", "The builder ended with SIGSEGV.")):
        folder = prepare(mode)
        builders(mode)
        with opened(folder, build="background") as scorer:
            wait_for(lambda scorer=scorer: scorer._session.engine._opening.build.finished)
            reports = [scored(scorer) for _ in range(2)]
        with opened(folder) as scorer:
            reports.append(scored(scorer))
        for kind, _, warnings in reports:
            (told,) = [warning for warning in warnings if reason in warning]
            assert told.startswith(f"No engine could be made for {GPU}. ")
            assert told.endswith(f"To try again: spinescore engine build {folder}")
            assert (kind, len(warnings)) == ("cpu", 2)
        with pytest.raises(EngineError, match=reason):
            opened(folder, "cuda")
    assert built() == ["fails", "crashes"]
    builders("right")
    builder.build(Bundle.open(folder), building_options(), print, "right")  # as `spinescore engine build` does
    with opened(folder) as scorer:  # the gate alone is left
        assert scored(scorer) == ("cuda", ENGINE, ())
    assert built() == ["fails", "crashes"]
    assert_everything_freed()


def case_what_the_gate_refuses_is_not_taken():
    """Its record says why, at this opening and at later ones; another engine would be the same."""
    folder = prepare()
    builders("wrong")
    with opened(folder, build="background") as scorer:
        wait_for(lambda: scorer._session.engine._opening.build.finished)
        _, _, (_, told) = scored(scorer)
    assert told.startswith(f"No engine could be made for {GPU}. The engines in tensorrt-10")
    assert "were not accepted: " in told
    assert "p99 shift px 2, at most 1" in told
    builders("right")
    with opened(folder) as scorer:
        kind, _, (told,) = scored(scorer)
    assert (kind, built()) == ("cpu", ["wrong"])
    assert f"was not accepted for bundle tiny on {GPU}: " in told
    assert "p99 shift px 2, at most 1" in told
    assert_everything_freed()


def case_closing_ends_the_build():
    folder = prepare()
    builders("waits")
    with opened(folder, build="background") as scorer:
        process = scorer._session.engine._opening.build._child._process
        wait_for(BUILDS.exists)
    assert process.returncode == 1  # of itself, since its input ended
    scorer.close()
    assert list(engine_paths(folder)) == []
    assert failure(folder, builder.TARGET) == ""
    assert_everything_freed()


def case_two_that_build_at_once_build_once():
    folder = prepare()
    builders("right")
    bundle = Bundle.open(folder)
    auto = Request("auto")
    plan, warnings = building.find_build(bundle, auto)
    assert warnings == ()
    with background.Build(bundle, plan, auto) as first, background.Build(bundle, plan, auto) as second:
        assert (first.wait(), second.wait()) == ((), ())
    assert built() == ["right"]
    (shown,) = [found for found in examine() if found.name == "phantom-reference" and "GPU" in found.group]
    assert f"tensorrt builds {builder.TARGET}" in shown.detail
    assert CONTROL.live() == {}


def building_options():
    from spinescore.export.engine import BuildOptions

    return BuildOptions("tensorrt")


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


if __name__ == "__main__":
    run(globals())
