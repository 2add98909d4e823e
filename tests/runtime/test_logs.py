"""The log `spinescore`: it gives the reason of every choice, and no data of a patient."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from helpers import dicom_files, tiny
from helpers.golden_bundle import record_of, write_golden_bundle
from helpers.identified_study import WHO, WORDS, write_study
from helpers.scoring import CERVICAL, LUMBAR
from spinescore.runtime import Scorer, cli, load_study
from spinescore.runtime.acceptance import write_record
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.engines.keptnetworks import kept_networks
from spinescore.runtime.logs import log_engine, log_study

STUDY = (CERVICAL.radiograph, LUMBAR.radiograph)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return tiny.write_bundle(tmp_path_factory.mktemp("bundle"))


def said(caplog):
    assert all(record.name.startswith("spinescore.") for record in caplog.records)
    return "\n".join(record.getMessage() for record in caplog.records)


def test_a_scorer_tells_what_it_chose(bundle, caplog):
    caplog.set_level(logging.DEBUG, "spinescore")
    with Scorer.open(bundle, "cpu") as scorer:
        scorer.score(STUDY)
        scorer.score(STUDY, 1e-3)
    text = said(caplog)
    assert "opened on cpu" in text
    assert "onnxruntime" in text
    assert "it needs no record" in text
    assert "no plan holds here" in text
    assert "what is kept for this user lies in" in text
    full, short = (line for line in text.splitlines() if line.startswith("study: "))
    assert "cervical scored" in full
    assert "localize" in full
    assert "grade" in full
    assert "skipped: nothing; warnings: none; rejects: none" in full
    assert "warnings: steps-skipped" in short
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}


def test_a_record_that_is_not_taken_is_told(tmp_path, caplog, monkeypatch):
    whole = Bundle.open(write_golden_bundle(tmp_path / "b"))
    monkeypatch.setattr("spinescore.runtime.opening.candidates.installed_openvino", lambda: "openvino 2027.0.0")
    other = replace(record_of(whole), engine="openvino", framework="openvino 2026.0.0", precision="fp32")
    write_record(other, whole)
    caplog.set_level(logging.DEBUG, "spinescore")
    with Scorer.open(whole.folder, "cpu") as scorer:
        report = scorer.score(STUDY)
    text = said(caplog)
    assert "accepted openvino 2026.0.0 fp32 of " in text
    assert "not taken: engine openvino fp32 was accepted with openvino 2026.0.0, here is openvino 2027.0.0" in text
    assert "engine-passed-over" in {found.code for found in report.notices}
    assert "warning engine-passed-over: A faster engine was accepted for this CPU, but cannot be used. Engine" in text


def test_compiled_networks_that_cannot_be_kept_are_told_once(tmp_path, caplog, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path / "file"))
    for name in ("first", "second"):
        (tmp_path / name).write_bytes(name.encode())
    caplog.set_level(logging.DEBUG, "spinescore")
    assert [kept_networks(tmp_path / name) for name in ("first", "second", "first")] == [None, None, None]
    (line,) = caplog.messages
    assert line.startswith(f"networks are compiled at each start, because nothing can be kept in {tmp_path / 'file'} (")


def test_no_word_of_a_patient_is_logged(bundle, tmp_path, caplog):
    caplog.set_level(logging.DEBUG, "spinescore")
    study = write_study(tmp_path / "Quorvexel")
    (study / "cervical.dcm").rename(study / "Zarnith_neck.dcm")
    (study / "Zarnith_letter.txt").write_text("no radiograph", encoding="utf-8")
    odd = {"RescaleSlope": "0", "PatientOrientation": ["Q", "F"], "BodyPartExamined": "KNEE", **WHO}
    dicom_files.write(dicom_files.radiograph_dataset(**odd), study / "Zarnith_odd.dcm")
    broken = (study / "lumbar.dcm").read_bytes()
    (study / "Zarnith_broken.dcm").write_bytes(broken[: len(broken) // 2])
    found = load_study(study)
    assert len(found.rejects) == 1
    with Scorer.open(bundle, "cpu") as scorer:
        report = scorer.score(found)
    assert report.warnings
    text = said(caplog)
    assert "a file is refused: corrupt-pixels" in text
    assert "pixels without compression" in text
    assert "rejects: corrupt-pixels, too-small" in text
    identity = [found.study_instance_uid, found.study_date, found.patient_key, str(tmp_path / "Quorvexel")]
    identity += [image.sop_instance_uid for image in found.radiographs]
    words = [*WORDS, "Zarnith", "neck", "letter", *identity]
    logged = [str(vars(record)) for record in caplog.records]
    assert not [(word, line) for word in words for line in (text, *logged) if word.lower() in line.lower()]


def test_it_has_no_handler_and_asks_for_no_level():
    logger = logging.getLogger("spinescore")
    assert (logger.handlers, logger.level, logger.propagate) == ([], logging.NOTSET, True)
    children = [name for name in logging.root.manager.loggerDict if name.startswith("spinescore.")]
    assert {"spinescore.opening", "spinescore.reading", "spinescore.scoring", "spinescore.cache"} <= set(children)
    assert not [name for name in children if logging.getLogger(name).handlers or logging.getLogger(name).level]


class Untouchable:
    def __getattribute__(self, name):
        raise AssertionError(f"{name} was looked at, although nothing is logged")


def test_nothing_is_made_into_text_unless_it_is_logged(caplog):
    caplog.set_level(logging.INFO, "spinescore")
    log_study(Untouchable())
    log_engine(Untouchable(), Untouchable(), None, ())
    assert not caplog.records


def test_the_command_line_shows_it(bundle, tmp_path, capsys):
    study = write_study(tmp_path / "study")
    assert cli.main(["-v", "score", str(study), "--bundle", str(bundle), "--device", "cpu"]) == 0
    loud = capsys.readouterr()
    assert "spinescore.opening: opened on cpu" in loud.err
    assert "spinescore.scoring: study: cervical scored" in loud.err
    assert cli.main(["score", str(study), "--bundle", str(bundle), "--device", "cpu"]) == 0
    quiet = capsys.readouterr()
    assert "spinescore." not in quiet.err
    assert not logging.getLogger("spinescore").handlers


def test_the_command_line_says_its_version(capsys):
    from spinescore.runtime import __version__

    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"spinescore {__version__}\n"
