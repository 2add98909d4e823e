"""`spinescore compare` and `spinescore cohort`: exit statuses, streams, files, and studies that are scored first."""

import csv
import json
from dataclasses import replace
from xml.etree import ElementTree

import cv2
import jsonschema
import numpy as np
import pytest

from helpers import tiny
from helpers.made_reports import NORMAL, changed, made_report, write_report
from helpers.tiny_study import TOTAL, write_study
from spinescore.runtime import cli
from spinescore.runtime.followup import Rules, compare, comparison_schema
from spinescore.runtime.followup.plots import comparison_png, cumulative_figure, cumulative_percent
from spinescore.runtime.followup.tables import TABLES
from spinescore.runtime.outputs.figures import rendered
from spinescore.runtime.reading.facts import patient_key
from spinescore.runtime.study import SITES

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
    """The number of pixels of a picture that have this colour."""
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


def test_several_followups_are_json_lines_in_folders_that_a_later_call_replaces(before, after, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["compare", before, after, before, "--json", "--out", str(out), "--no-plot"]
    assert cli.main([*arguments, "--progression", "3", "--no-progression", "1,2"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [comparison["total"]["change"] for comparison in found] == [2, 0]
    assert found[0]["total"]["possible"] == [2, 5]
    assert (found[0]["progression"]["progressed"], found[0]["progression"]["verdict"]) == (None, "undecided")
    assert [rule["met"] for rule in found[0]["progression"]["no_progression"]] == [False, None]
    assert cli.main([*arguments, "--rate-years", "1"]) == 0
    progression = json.loads(capsys.readouterr().out.splitlines()[0])["progression"]
    assert progression["rate"] == pytest.approx(2 * 365.25 / 731, abs=1e-3)
    assert (progression["verdict"], progression["window_years"]) == (None, [0.75, 1.25])
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == [
        "followup-1/comparison.json", "followup-2/comparison.json",
    ]  # fmt: skip
    (out / "followup-2/notes.txt").touch()
    assert cli.main(["compare", before, after, "--out", str(out), "--no-plot"]) == 0
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == [
        "comparison.json", "followup-2/notes.txt",
    ]  # fmt: skip
    assert not (out / "followup-1").exists()


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
    assert "using its report.json" in printed.err
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
    find_spec = "spinescore.runtime.verbs.extras.find_spec"
    monkeypatch.setattr(find_spec, lambda name: None if name == missing else name)
    assert cli.main([argument.format(before, after, tmp_path) for argument in arguments]) == 2
    assert words in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["after.json", "before.json"]


def test_cohort_writes_tables_and_names_what_it_passes_over(before, after, tmp_path, capsys):
    out = tmp_path / "out"
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    arguments = ["cohort", str(tmp_path), "--out", str(out)]
    assert cli.main([*arguments, "--no-plot"]) == 0
    printed = capsys.readouterr()
    assert "2 studies of 1 patient with a key; passed over: " in printed.out
    assert "1 of 1 progressed" in printed.out
    assert "broken.json was passed over" in printed.err
    assert sorted(path.name for path in out.iterdir()) == sorted(["columns.csv", *(f"{name}.csv" for name in TABLES)])
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
    assert sorted(path.stem for path in out.glob("*.parquet")) == sorted(TABLES)
    assert cli.main([*arguments[:-1], "--no-plot"]) == 0
    assert not [*out.glob("*.parquet"), *out.glob("*.png")]  # they would be of an earlier call
    assert cli.main(arguments) == 0
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
    one = {"a": [compare(BEFORE, AFTER), compare(BEFORE, BEFORE)]}
    two = {**one, "b": [compare(BEFORE, AFTER)]}
    first, second = (picture(rendered(cumulative_figure(series, Rules()))) for series in (one, two))
    assert drawn(first, VERMILION) == 0
    assert drawn(second, VERMILION) > 50


def reader_csv(path, *studies):
    """A reader's file of (study, date, grade of L1-superior); all other grades are 0."""
    lines = ["study,patient,study_date,site,grade"]
    for uid, day, grade in studies:
        lines += [
            f"{uid},P,{day},{site},{grade if site == 'L1-superior' else 0}"
            for sites in SITES.values()
            for site in sites
        ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_readers_file_goes_into_compare_and_cohort(before, tmp_path, capsys):
    readings = reader_csv(tmp_path / "r.csv", ("1", "20220110", 0.5), ("2", "20240110", 3))
    assert cli.main(["compare", f"{readings}:1", f"{readings}:2"]) == 0
    text = capsys.readouterr().out
    assert "0.5 -> 3, change +2.5" in text
    assert "Reader: Grades of a reader" in text
    assert cli.main(["compare", before, f"{readings}:2", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    jsonschema.validate(document, comparison_schema())
    assert document["same_bundle"] is False
    assert (
        cli.main(["cohort", str(tmp_path), str(readings), "--out", str(tmp_path / "out"), "--no-plot", "--json"]) == 0
    )
    summary = json.loads(capsys.readouterr().out)
    assert (summary["studies"], summary["changes"], summary["first_to_last"]["mean_change"]) == (3, 1, 2.5)
    rows = list(csv.DictReader((tmp_path / "out" / "corner_changes.csv").read_text(encoding="utf-8").splitlines()))
    (row,) = (row for row in rows if row["site"] == "L1-superior")
    assert (row["baseline_grade"], row["followup_grade"], row["new_syndesmophyte"]) == ("0.5", "3", "true")
    for arguments, words in (
        ([str(readings), before], f"holds 2 readings (1, 2); name one, as {readings}:1"),
        ([f"{readings}:9", before], "has no readings of study 9"),
        ([f"{tmp_path / 'no.csv'}:1", before], "there is no file or folder"),
    ):
        assert cli.main(["compare", *arguments]) == 2
        assert words in capsys.readouterr().err


def test_the_smallest_detectable_change_is_a_number_or_a_file(before, after, tmp_path, capsys):
    evaluated = tmp_path / "evaluate.json"
    for stated, sdc in (("2.5", 2.5), (str(evaluated), 1.5)):
        figures = {"from_change": {"patients": 0, "value": None}, "from_status": {"studies": 9, "value": 1.5}}
        evaluated.write_text(json.dumps({"sdc": figures}), encoding="utf-8")
        assert cli.main(["compare", before, after, "--sdc", stated, "--json"]) == 0
        progression = json.loads(capsys.readouterr().out)["progression"]
        assert (progression["sdc"], progression["beyond_error"]) == (sdc, sdc < 2)
    evaluated.write_text(json.dumps({"sdc": {name: {"value": None} for name in figures}}), encoding="utf-8")
    for stated, words in (
        (str(evaluated), "states no smallest detectable change"),
        (before, "is no evaluate.json"),
        ("-1", "neither a number from 0 on nor a file"),
        ("much", "neither a number from 0 on nor a file"),
    ):
        assert cli.main(["compare", before, after, f"--sdc={stated}"]) == 2
        assert words in capsys.readouterr().err


def test_the_window_is_an_option(before, after, capsys):
    for options, verdict in (
        ([], "progression"),
        (["--window-years", "3-4"], None),
        (["--window-years", "3-4", "--by-rate"], "no progression"),
        (["--window-years", "3-4", "--by-rate", "--min-rate-years", "2.5"], None),
        (["--max-not-comparable", "0"], None),
    ):
        assert cli.main(["compare", before, after, "--progression", "2", "--json", *options]) == 0
        found = json.loads(capsys.readouterr().out)["progression"]
        if verdict == "no progression":
            assert found["basis"] == "rate"
            assert found["verdict"] in ("progression", "no progression", "undecided")
        else:
            assert found["verdict"] == verdict
    for window in ("2", "3-2", "a-b", "-1-2"):
        with pytest.raises(SystemExit, match="2"):
            cli.main(["compare", before, after, f"--window-years={window}"])


def test_your_own_list_of_patients_is_joined_by_the_key(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SPINESCORE_PATIENT_KEY", "secret")
    for number, patient in enumerate(("A-1", "A-2")):
        for year in (2022, 2024):
            lumbar = changed(NORMAL, at0=2 * number if year == 2024 else 0)
            about = {"patient": patient_key(patient), "day": f"{year}0110"}
            report = made_report({"cervical": NORMAL, "lumbar": lumbar}, f"{number}.{year}", **about)
            write_report(tmp_path / "in" / f"{number}-{year}.json", report)
    listed = tmp_path / "list.csv"
    listed.write_text("patient_id;group\nA-1;placebo\nA-2;drug\nA-3;drug\n", encoding="utf-8-sig")
    out = tmp_path / "out"
    arguments = ["cohort", str(tmp_path / "in"), "--out", str(out), "--patients", str(listed)]
    assert cli.main([*arguments, "--no-plot"]) == 0
    assert "2 of 3 patients of the list have a study" in capsys.readouterr().err
    rows = list(csv.DictReader((out / "patient_keys.csv").read_text(encoding="utf-8").splitlines()))
    assert [(row["patient_id"], row["group"], row["studies"]) for row in rows] == [
        ("A-1", "placebo", "2"), ("A-2", "drug", "2"), ("A-3", "drug", "0"),
    ]  # fmt: skip
    assert rows[0]["patient_key"] == patient_key("A-1")
    for file in out.glob("*.csv"):
        assert file.name == "patient_keys.csv" or "A-1" not in file.read_text(encoding="utf-8")
    for options, words in (
        (["--arm", "colour"], "no column colour"),
        (["--patients", str(tmp_path)], "it is a folder, not a file"),
    ):
        assert cli.main([*arguments, "--no-plot", *options]) == 2
        assert words in capsys.readouterr().err
    listed.write_text("patient_id,group\nA-1,a\nA-1,b\n", encoding="utf-8")
    assert cli.main([*arguments, "--no-plot", "--arm", "group"]) == 2
    assert "two values of group" in capsys.readouterr().err
    assert cli.main(["cohort", str(tmp_path / "in"), "--arm", "group", "--no-plot"]) == 2


def test_pictures_of_a_cohort_for_print_have_arms_and_intervals(before, after, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    listed = tmp_path / "list.csv"
    listed.write_text("id,issuer,arm\nA,,drug\n", encoding="utf-8")
    out = tmp_path / "out"
    arguments = ["cohort", str(tmp_path), "--out", str(out), "--patients", str(listed), "--arm", "arm"]
    assert cli.main([*arguments, "--figures", "svg,pdf"]) == 0
    assert (out / "change.pdf").read_bytes().startswith(b"%PDF")
    text = (out / "change.svg").read_text(encoding="utf-8")
    for words in (
        "in no arm, tiny 1",
        "2.0 years between them, median 2.0",
        "own probabilities",
        "progression: 2 or more",
    ):
        assert words in text
    first = (out / "change.svg").read_bytes()
    assert cli.main([*arguments, "--figures", "svg"]) == 0
    assert (out / "change.svg").read_bytes() == first
    assert not (out / "change.pdf").exists()
    with pytest.raises(SystemExit, match="2"):
        cli.main([*arguments, "--figures", "gif"])


def test_names_from_files_are_text_in_pictures():
    """Text that matplotlib would read as a formula, and letters that no SVG may hold."""
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    odd = replace(AFTER, bundle=replace(AFTER.bundle, name="a$\\frac$\x01 <b>"))
    assert picture(comparison_png(compare(BEFORE, odd))).size
    figure = cumulative_figure({"r$\\x$\x02 & <i>": [compare(BEFORE, AFTER)]}, Rules())
    text = rendered(figure, "svg").decode()
    ElementTree.fromstring(text)
    assert "r$" in text


def test_the_picture_of_a_comparison_shows_what_was_imputed():
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    grey, hidden = (118, 118, 118), changed(NORMAL, at4=None, at5=None)
    whole, part = (
        picture(comparison_png(compare(BEFORE, made_report({"cervical": NORMAL, "lumbar": lumbar}, "2", "20240111"))))
        for lumbar in (NORMAL, hidden)
    )
    assert drawn(part, grey) > drawn(whole, grey) + 100
