"""`spinescore compare` and `spinescore cohort`: exit statuses, streams, files, and studies that are scored first."""

import csv
import json

import cv2
import jsonschema
import numpy as np
import pytest
import tiny
from made_reports import NORMAL, changed, made_report, write_report
from tiny_study import TOTAL, write_study

from spinescore.runtime import cli
from spinescore.runtime.followup import Rules, compare, comparison_schema
from spinescore.runtime.followup.plots import comparison_png, cumulative_percent, cumulative_png

BEFORE = made_report({"cervical": NORMAL, "lumbar": changed(NORMAL, at2=2, at3=2)}, "1", "20220110")
AFTER = made_report({"cervical": changed(NORMAL, at7=None), "lumbar": changed(NORMAL, at2=3, at3=3)}, "2", "20240111")
VERMILION = (0, 94, 213)  # blue, green, red


@pytest.fixture
def before(tmp_path):
    return str(write_report(tmp_path / "before.json", BEFORE))


@pytest.fixture
def after(tmp_path):
    return str(write_report(tmp_path / "after.json", AFTER))


def picture(data):
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image


def drawn(image, colour):
    """How many pixels of a picture have a colour."""
    return int((np.abs(image.astype(int) - colour) < 12).all(axis=2).sum())


def test_compare_prints_a_table_and_writes_json_and_a_picture(before, after, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    out = tmp_path / "out"
    assert cli.main(["compare", before, after, "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "0 -> 0, change 0, possible +0 to +3" in printed.out
    assert "4 -> 6, change +2" in printed.out
    assert "growth, new bridge" in printed.out
    assert "region's mean for C6-superior" not in printed.out
    assert "warning: the total of the follow-up counts the region's mean" in printed.err
    assert sorted(path.name for path in out.iterdir()) == ["comparison.json", "comparison.png"]
    document = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    jsonschema.validate(document, comparison_schema())
    assert document["total"]["change"] == 2
    assert picture((out / "comparison.png").read_bytes()).shape[1] > 1000
    assert cli.main(["compare", before, after, "--out", str(out), "--no-plot"]) == 0
    assert [path.name for path in out.iterdir()] == ["comparison.json"]


def test_several_followups_are_json_lines_in_numbered_folders(before, after, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["compare", before, after, before, "--json", "--out", str(out), "--no-plot"]
    assert cli.main([*arguments, "--progression", "3", "--no-progression", "1,2", "--rate-years", "1"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [comparison["total"]["change"] for comparison in found] == [2, 0]
    assert found[0]["progression"]["progressed"] is False
    assert [rule["met"] for rule in found[0]["progression"]["no_progression"]] == [False, True]
    assert found[0]["progression"]["rate"] == pytest.approx(2 * 365.25 / 731, abs=1e-3)
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == [
        "followup-1/comparison.json", "followup-2/comparison.json",
    ]  # fmt: skip


def test_studies_are_scored_and_folders_with_a_report_are_read(tmp_path, capsys):
    bundle = str(tiny.write_bundle(tmp_path / "bundle"))
    study = str(write_study(tmp_path / "study"))
    assert cli.main(["score", study, "--bundle", bundle, "--out", str(tmp_path / "scored")]) == 0
    capsys.readouterr()
    one_region = str(write_study(tmp_path / "later", "1.2.3.5", ("cervical",)))
    arguments = [
        "compare",
        str(tmp_path / "scored"),
        study,
        one_region,
        "--bundle",
        bundle,
        "--device",
        "cpu",
        "--json",
    ]
    assert cli.main(arguments) == 0
    printed = capsys.readouterr()
    same, partly = (json.loads(line) for line in printed.out.splitlines())
    assert (same["total"]["baseline"], same["total"]["followup"], same["corners"]["change"]) == (TOTAL, TOTAL, 0)
    assert (partly["total"]["change"], partly["corners"]["comparable"]) == (None, 12)
    assert partly["regions"]["lumbar"]["units"][0]["corners"][0]["not_comparable"] == "follow-up: region missing"
    assert "taking report.json" in printed.err
    assert "both reports are of the same study" in printed.err


def test_what_cannot_be_compared(before, after, tmp_path, capsys):
    other = made_report({"cervical": NORMAL, "lumbar": NORMAL}, patient="b" * 32)
    nothing = made_report({"cervical": None, "lumbar": None}, "3", "20250101")
    lines = write_report(tmp_path / "lines.jsonl", BEFORE, AFTER)
    broken = tmp_path / "broken.json"
    broken.write_text("{", encoding="utf-8")
    for status, arguments, words in (
        (3, [before, str(write_report(tmp_path / "other.json", other))], "two-patients"),
        (3, [before, str(write_report(tmp_path / "nothing.json", nothing))], ""),
        (2, [before, str(tmp_path / "none.json")], "there is no file or folder"),
        (2, [before, str(lines)], "holds 2 reports"),
        (2, [str(broken), after], "broken.json"),
        (2, [before, after, "--out", before], "is a file"),
    ):
        assert cli.main(["compare", *arguments]) == status
        assert words in capsys.readouterr().err
    for options in (["--rate-years", "0"], ["--progression", "nan"], ["--no-progression", "1,x"]):
        with pytest.raises(SystemExit, match="2"):
            cli.main(["compare", before, after, *options])


@pytest.mark.parametrize(
    ("arguments", "missing", "words"),
    [
        (["compare", "{0}", "{1}", "--out", "{2}"], "matplotlib", "spinescore[plots]"),
        (["cohort", "{2}", "--out", "{2}"], "matplotlib", "spinescore[plots]"),
        (["cohort", "{2}", "--out", "{2}", "--no-plot", "--parquet"], "pyarrow", "spinescore[parquet]"),
    ],
)
def test_a_missing_library_is_one_sentence_before_any_work(
    arguments, missing, words, before, after, tmp_path, capsys, monkeypatch
):
    for verb in ("compare", "cohort"):
        monkeypatch.setattr(
            f"spinescore.runtime.verbs.{verb}.find_spec", lambda name: None if name == missing else name
        )
    assert cli.main([argument.format(before, after, tmp_path) for argument in arguments]) == 2
    assert words in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["after.json", "before.json"]


def test_cohort_writes_tables_and_names_what_it_passes_over(before, after, tmp_path, capsys):
    out = tmp_path / "out"
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    arguments = ["cohort", str(tmp_path), "--out", str(out)]
    assert cli.main([*arguments, "--no-plot"]) == 0
    printed = capsys.readouterr()
    assert "2 studies of 1 known patients" in printed.out
    assert "1 of 1 progressed" in printed.out
    assert "broken.json was passed over" in printed.err
    names = ["changes.csv", "columns.csv", "corners.csv", "patients.csv", "studies.csv", "units.csv"]
    assert sorted(path.name for path in out.iterdir()) == names
    rows = list(csv.DictReader((out / "changes.csv").read_text(encoding="utf-8").splitlines()))
    assert [(row["change"], row["growth_units"], row["new_bridges"]) for row in rows] == [("2", "1", "1")]
    assert len((out / "corners.csv").read_text(encoding="utf-8").splitlines()) == 1 + 2 * 24


def test_cohort_draws_changes_where_there_are_some_and_writes_parquet(before, after, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    out = tmp_path / "out"
    arguments = ["cohort", str(tmp_path), "--out", str(out), "--parquet"]
    assert cli.main(arguments) == 0
    assert (out / "change.png").is_file()
    assert sorted(path.stem for path in out.glob("*.parquet")) == ["changes", "corners", "patients", "studies", "units"]
    (tmp_path / "after.json").unlink()
    assert cli.main(arguments) == 0
    assert "no patient has two studies" in capsys.readouterr().err
    assert not (out / "change.png").exists()


def test_a_folder_without_a_report(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.json").write_text("{", encoding="utf-8")
    assert cli.main(["cohort", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--no-plot"]) == 3
    assert "broken.json was passed over" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert cli.main(["cohort", str(tmp_path / "none"), "--no-plot"]) == 2


def test_the_picture_shows_an_arrow_where_a_grade_changed_and_no_name():
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    changes, none = compare(BEFORE, AFTER), compare(BEFORE, BEFORE)
    first, second = picture(comparison_png(changes)), picture(comparison_png(none))
    assert drawn(first, VERMILION) > drawn(second, VERMILION) + 100
    assert comparison_png(changes) == comparison_png(changes)
    named = made_report({"cervical": NORMAL, "lumbar": NORMAL}, "9.9.9", "20220110", patient="c" * 32)
    unnamed = made_report({"cervical": NORMAL, "lumbar": NORMAL}, "8.8.8", "20220110", patient="d" * 32)
    assert comparison_png(compare(named, named)) == comparison_png(compare(unnamed, unnamed))


def test_cumulative_percentages_by_hand():
    percent, ordered = cumulative_percent([3, 0, -1, 0])
    assert percent.tolist() == [12.5, 37.5, 62.5, 87.5]
    assert ordered.tolist() == [-1, 0, 0, 3]


def test_the_cumulative_plot_has_every_series():
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    one, two = {"a": [0, 1, 4]}, {"a": [0, 1, 4], "b": [2, 2.5]}
    first, second = (picture(cumulative_png(series, Rules(), "Change")) for series in (one, two))
    assert drawn(first, VERMILION) == 0
    assert drawn(second, VERMILION) > 50
