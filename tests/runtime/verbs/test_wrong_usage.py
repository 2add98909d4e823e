"""Wrong command lines end with the right status and one message that names the object and the next step."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from spinescore.runtime import cli, load_study
from spinescore.runtime.phantom import write_study

MISSPELT = [
    (["scor", "study"], "did you mean score?"),
    (["score", "study", "--bundel", "x"], "unrecognized arguments: --bundel x; did you mean --bundle?"),
    (["bundle", "inf", "x"], "did you mean info?"),
    (["score", "study", "--region", "lumber"], "did you mean lumbar?"),
    (["study", "list", "--state", "parkd"], "did you mean parked?"),
    (["study", "list", "7"], "unrecognized arguments: 7 (help: spinescore study list --help)"),
    (["score", "study", "--max-imputed", "13"], "13 is more than the 12 corners of a region"),
    (["archive", "study", "--out", "t", "--max-imputed", "13"], "13 is more than the 12 corners of a region"),
    (["phantom", "--seed", "1000000000000", "--out", "p"], "the last seed is 999999999999"),
    (["demo", "--seed", "-1"], "'-1' is not a whole number from 0 on"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), MISSPELT)
def test_words_that_the_parser_does_not_know_give_one_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    said = capsys.readouterr()
    assert (ended.value.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert message in said.err
    assert not any(tmp_path.iterdir())


REFUSED = [
    (2, ["score", "folder", "--out", "file/x"], "--out file/x: file is a file; name a folder"),
    (2, ["phantom", "--seed", "1", "--out", "file/x"], "--out file/x: file is a file; name a folder"),
    (2, ["console-sdk", "file/x"], "DIR file/x: file is a file; name a folder"),
    (2, ["archive", "folder", "--out", "t", "--retry", "worker-crash"], "did you mean worker-crashed?"),
    (2, ["archive", "folder", "--out", "t", "--retry", "nonsense"], "--status TABLES lists those of the tables"),
    (2, ["archive", "ftp://server", "--out", "t"], "it begins with http:// or https://"),
    (2, ["status", "--config", "none.toml"], "there is no configuration none.toml; name one with --config F"),
    (2, ["serve", "--check", "--config", "file"], "check it with spinescore serve --check --config file"),
    (2, ["serve", "--port", "8474"], "--port is for --http-only"),
    (2, ["serve", "--http-only", "--until-idle"], "leave --config and --until-idle out"),
    (4, ["serve", "--http-only", "--folder", "made", "--bundle", "none"], "There is no bundle 'none'"),
    (2, ["bench", "--out", "file/x.json"], "--out file is a file; name a folder"),
    (2, ["bench", "--bundle", "phantom-reference", "--out", "folder"], "--out folder is a folder; name a file"),
    (2, ["plan", "--budget-ms", "100", "--out", "file/x.json"], "--out file is a file; name a folder"),
    (2, ["export", "--localizer", "x", "--grader", "y", "--out", "file/b"], "--out file is a file; name a folder"),
    (4, ["bench", "--bundle", "none"], "There is no bundle 'none'"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "words", "message"), REFUSED)
def test_what_cannot_be_done_is_refused_before_any_work(tmp_path, monkeypatch, capsys, status, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    assert cli.main(words) == status
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err.splitlines()[-1]
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "file"}


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
@pytest.mark.parametrize("out", ["link", "link/x"])
def test_a_folder_for_results_that_is_a_link_to_nothing_is_refused_before_any_work(tmp_path, monkeypatch, capsys, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("nowhere")
    assert cli.main(["phantom", "--seed", "1", "--out", out]) == 2
    assert "link is a link that leads nowhere; name a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["console-sdk"],
        ["crops", "study", "--out"],
        ["phantom", "--seed", "1", "--out"],
        ["score", "study", "--out"],
        ["export", "--localizer", "synthetic:hrnet-w4", "--grader", "synthetic:resnet50-w4", "--out"],
    ],
    ids=lambda words: words[0],
)
def test_a_place_that_cannot_be_made_is_no_fault_of_ours(monkeypatch, capsys, tmp_path, words):
    """As below /proc, where making a folder fails as if the one above were missing."""
    make = Path.mkdir

    def refuse(path, *arguments, **options):
        if "nowhere" in path.parts:
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return make(path, *arguments, **options)

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    monkeypatch.chdir(tmp_path)
    if "study" in words:
        write_study(1, "study")
    assert cli.main([*words, str(tmp_path / "nowhere" / "x")]) == 4
    said = capsys.readouterr().err
    assert "nowhere" in said
    assert "place" in said or "folder" in said


def test_a_folder_that_cannot_be_listed_is_named(monkeypatch, tmp_path):
    """Otherwise a radiograph in it would be missing in silence."""
    (tmp_path / "closed").mkdir()
    listing = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return listing(path)

    monkeypatch.setattr(os, "scandir", refuse)
    study = load_study(tmp_path)
    assert list(study.warnings) == [
        "skipped: the folder closed cannot be read (Permission denied); let this user read it"
    ]
