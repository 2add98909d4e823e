"""The measurement of an archive's throughput: every split is run, the tables are alike, the record is whole."""

import json
import sys

import pytest

from spinescore.benchmarks import archive

pytest.importorskip("pyarrow", reason="tables are Parquet files")
pytestmark = pytest.mark.slow


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of processes is read from /proc")
def test_a_few_studies_give_a_whole_record(tmp_path, capsys):
    words = [
        "--count",
        "4",
        "--flat",
        "3",
        "--seconds",
        "0.2",
        "--scale",
        "0.1",
        "--out",
        str(tmp_path / "record.json"),
    ]
    assert archive.main(words) in (0, 1)  # the rates of a few small studies are no figures
    record = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    assert record == json.loads(capsys.readouterr().out)
    assert record["schema"] == archive.SCHEMA
    assert record["tables_alike"] is True
    assert set(record["archive"]) == {*record["networks"], "chosen"}
    assert all(rate > 0 for rate in (*record["archive"].values(), *record["networks"].values(), record["loop"]))
    assert all(sizes["most"] > 0 for sizes in record["memory_mib"].values())
    assert (record["flat"]["studies"], len(record["flat"]["memory_mib_over_the_run"])) == (3, 11)
