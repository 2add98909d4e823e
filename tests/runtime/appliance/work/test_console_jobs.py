"""Jobs of consoles between the studies of the queue, with a worker in this process and a clock that tests move."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from helpers.appliance import tiny_files
from spinescore.runtime.appliance.store.resultset import Job
from spinescore.runtime.appliance.work.consolejob import ANSWER, ConsoleJob, View
from spinescore.runtime.appliance.work.workerprocess import do_console
from spinescore.runtime.documents import document_of
from spinescore.runtime.errors import BudgetExceeded


@pytest.fixture
def appliance(make):
    one = make()
    one.step()
    one.step()
    assert one.dispatcher.is_ready
    return one


def job_of(appliance, files, key="1-a", **changes) -> ConsoleJob:
    folder = appliance.places.incoming / f"{key}.console"
    folder.mkdir()
    settings = {"views": (), "frames": (), "headers": (), "budget_ms": None, "strict": False, "formats": ()} | changes
    return ConsoleJob(key, str(folder), files=tuple(map(str, files)), links=f"/v1/results/{key}", **settings)


def ask(appliance, job) -> None:
    appliance.dispatcher.hear_console({"score": document_of(job)})


def codes(appliance) -> dict[str, str | None]:
    return {answer["console"]: answer["code"] for answer in appliance.answers}


def faults(appliance) -> list[str]:
    return [row["code"] for row in appliance.index.rows("SELECT code FROM faults")]


def test_a_console_is_answered_without_a_change_of_the_index(appliance, files):
    job, changes = job_of(appliance, files), appliance.index._connection.total_changes
    ask(appliance, job)
    appliance.dispatcher.step()
    assert codes(appliance) == {"1-a": None}
    assert json.loads((Path(job.folder) / ANSWER).read_text())["report"]["total"]["status"] == "complete"
    assert appliance.index._connection.total_changes - changes <= 1  # the engine in the status, once and afterwards
    again = job_of(appliance, files, "1-b")
    changes = appliance.index._connection.total_changes
    ask(appliance, again)
    appliance.dispatcher.step()
    assert codes(appliance) == {"1-a": None, "1-b": None}
    assert appliance.index._connection.total_changes == changes


def test_consoles_go_before_studies_and_do_not_interrupt_one(appliance, tmp_path):
    """A study is at the worker, another is due; the console comes next, and no attempt is counted."""
    files = tiny_files(tmp_path / "1", "1.2.1")
    appliance.receive(*files)
    appliance.receive(*tiny_files(tmp_path / "2", "1.2.2"))
    finish = appliance.worker.act
    appliance.worker.act = lambda job: []  # it is not finished yet
    appliance.clock.pass_s(5.0)
    appliance.dispatcher.step()
    appliance.dispatcher.step()
    assert sorted(appliance.states().values()) == ["due", "scoring"]
    ask(appliance, job_of(appliance, files))
    appliance.dispatcher.step()
    assert len(appliance.worker.jobs) == 1
    appliance.worker.act = finish
    appliance.worker.said += finish(appliance.worker.jobs[0])
    appliance.run(5)
    kinds = [type(job) for job in appliance.worker.jobs]
    assert kinds == [Job, ConsoleJob, Job]
    assert codes(appliance) == {"1-a": None}
    assert {appliance.study(uid)["attempts"] for uid in ("1.2.1", "1.2.2")} == {0}
    assert set(appliance.states().values()) == {"delivered"}


def test_a_console_that_crashes_the_worker_is_told_and_not_tried_again(appliance, files):
    def crash(job):
        appliance.worker.end = "SIGSEGV"
        return []

    appliance.worker.act_for_console = crash
    ask(appliance, job_of(appliance, files))
    ask(appliance, job_of(appliance, files, "1-b"))
    appliance.dispatcher.step()
    assert codes(appliance) == {"1-a": "worker-crashed"}
    del appliance.worker.act_for_console  # the next worker is well, and has the one that waits
    appliance.receive(*files)
    appliance.run(10)
    assert codes(appliance) == {"1-a": "worker-crashed", "1-b": None}
    assert appliance.states() == {"1.2.3.4": "delivered"}
    assert appliance.study()["attempts"] == 0
    assert faults(appliance) == []
    assert [type(job) for job in appliance.worker.jobs].count(ConsoleJob) == 2


@pytest.mark.parametrize(("fault", "code"), [("silent", "worker-timeout"), ("memory", "worker-memory")])
def test_a_console_that_hangs_or_fills_the_worker_is_told(appliance, files, fault, code):
    appliance.worker.act_for_console = lambda job: []
    ask(appliance, job_of(appliance, files))
    appliance.dispatcher.step()
    assert codes(appliance) == {}
    if fault == "silent":
        appliance.worker.silent = True
        appliance.clock.pass_s(61.0)
    else:
        appliance.worker.memory = 9 << 30
    appliance.dispatcher.step()
    appliance.dispatcher.step()
    assert codes(appliance) == {"1-a": code}


def test_a_study_that_crashes_the_worker_is_blamed_and_not_the_console_that_waits(appliance, files):
    appliance.receive(*files)
    appliance.clock.pass_s(5.0)
    appliance.worker.act = lambda job: []
    appliance.dispatcher.step()
    appliance.dispatcher.step()
    ask(appliance, job_of(appliance, files))
    appliance.worker.end = "SIGKILL"
    appliance.dispatcher.step()
    del appliance.worker.act
    appliance.run(5)
    assert faults(appliance) == ["worker-crashed"]
    assert codes(appliance) == {"1-a": None}
    assert appliance.states() == {"1.2.3.4": "delivered"}


def test_four_wait_and_the_next_is_refused(appliance, files):
    appliance.worker.act_for_console = lambda job: []
    for number in range(6):
        ask(appliance, job_of(appliance, files, f"1-{number}"))
    assert codes(appliance) == {"1-5": "http-busy"}
    assert len(appliance.worker.jobs) == 1


def test_before_the_bundle_is_open_a_console_is_refused(make, files):
    one = make()
    ask(one, job_of(one, files))
    assert codes(one) == {"1-a": "not-ready"}


def test_a_worker_that_cannot_open_its_bundle_again_refuses_who_waits(appliance, files):
    appliance.worker.act_for_console = lambda job: []
    for key in ("1-a", "1-b"):
        ask(appliance, job_of(appliance, files, key))
    appliance.worker.open = lambda: setattr(appliance.worker, "end", "exit status 1")
    appliance.worker.end = "SIGSEGV"
    appliance.run(3)
    assert codes(appliance) == {"1-a": "worker-crashed", "1-b": "not-ready"}


def test_cancelling_takes_a_job_out_of_the_queue_or_tells_the_worker(appliance, files):
    appliance.worker.act_for_console = lambda job: []
    for key in ("1-a", "1-b", "1-c"):
        ask(appliance, job_of(appliance, files, key))
    appliance.dispatcher.hear_console({"cancel": "1-b"})
    appliance.dispatcher.hear_console({"cancel": "1-a"})
    appliance.dispatcher.hear_console({"cancel": "1-unknown"})
    assert codes(appliance) == {"1-b": "cancelled"}
    assert appliance.worker.cancelled == ["1-a"]
    appliance.worker.said.append({"answered": "1-a", "code": "cancelled", "message": "given up", "engine": ""})
    appliance.dispatcher.step()
    assert codes(appliance) == {"1-b": "cancelled", "1-a": "cancelled"}
    assert [job.key for job in appliance.worker.jobs] == ["1-a", "1-c"]


def test_a_new_web_process_ends_the_jobs_of_the_one_before(appliance, files):
    appliance.worker.act_for_console = lambda job: []
    for key in ("1-a", "1-b"):
        ask(appliance, job_of(appliance, files, key))
    appliance.dispatcher.hear_console({"consoles": "none"})
    assert appliance.worker.cancelled == ["1-a"]
    appliance.worker.said.append({"answered": "1-a", "code": "cancelled", "message": "given up", "engine": ""})
    appliance.dispatcher.step()
    assert not appliance.dispatcher.is_busy


def test_a_service_that_ends_answers_everybody(appliance, files):
    appliance.worker.act_for_console = lambda job: []
    for key in ("1-a", "1-b"):
        ask(appliance, job_of(appliance, files, key))
    appliance.dispatcher.close()
    assert codes(appliance) == {"1-a": "not-ready", "1-b": "not-ready"}


def done(job, score, cancel=None):
    said = []
    goes_on = do_console(job, score, lambda **message: said.append(message), cancel or threading.Event())
    return said[-1]["code"], goes_on


def test_the_worker_goes_on_after_whatever_a_console_sends(appliance, files, score, tmp_path):
    cancel = threading.Event()
    cancel.set()
    assert done(job_of(appliance, files, "1-c"), score, cancel) == ("cancelled", True)
    (tmp_path / "x").write_bytes(b"x")
    assert done(job_of(appliance, [tmp_path / "x"], "1-d"), score) == ("not-dicom", True)
    assert done(job_of(appliance, files[:1], "1-e", formats=("json", "sc")), score) == (None, True)

    def late(study, **more):
        raise BudgetExceeded("late")

    assert done(job_of(appliance, files, "1-f"), late) == ("budget", True)

    def broken(study, **more):
        raise RuntimeError("a secret")

    assert done(job_of(appliance, files, "1-g"), broken) == ("worker-crashed", False)
    gone = job_of(appliance, files, "1-h")
    Path(gone.folder).rmdir()  # the web process ended, and the next one cleaned up
    assert done(gone, score) == ("worker-crashed", True)


def test_options_of_a_console_reach_the_scorer(appliance, files, score):
    options = {}

    def noted(study, **more):
        options.update(more)
        return score(study)

    done(job_of(appliance, files, budget_ms=750.0, strict=True), noted)
    assert (options["budget_ms"], options["strict"]) == (750.0, True)


def test_frames_of_all_forms(appliance, score, tmp_path):
    """16 bits little endian, odd sizes; what reading refuses is a reject or a bad request, never a crash."""
    frame = tmp_path / "frame.raw"
    frame.write_bytes(b"\x01\x02" * 64 * 65)
    view = View("a", 64, 65, 16, bits_stored=12)
    job = job_of(appliance, (), "1-a", views=(view,), frames=(str(frame),), headers=(None,))
    assert done(job, score) == ("too-small", True)
    job = job_of(appliance, (), "1-b", views=(View("a", 64, 65, 16, study_instance_uid="   "),), frames=(str(frame),),
                 headers=(None,))  # fmt: skip
    assert done(job, score) == ("http-request", True)
