"""An archive behind DICOMweb: a small server on the loopback interface, and the same tables as from its files."""

import io
import json
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pydicom
import pytest

from helpers import archive, tiny
from spinescore.runtime import Scorer, cli
from spinescore.runtime.archive import dicomweb
from spinescore.runtime.archive.dicomweb import WebArchive, fetch_study
from spinescore.runtime.archive.layout import ArchiveError, Places
from spinescore.runtime.archive.manifest import make_manifest
from spinescore.runtime.archive.run import score_archive
from spinescore.runtime.archive.studylists import read_list

pytest.importorskip("dicomweb_client", reason="the client of DICOMweb")
pytest.importorskip("pyarrow", reason="tables are Parquet files")


class Server:
    """Serves the studies of a folder by QIDO-RS and WADO-RS; `requests` are the paths that were asked for."""

    def __init__(self, folder):
        self.studies, self.requests, self.tokens = defaultdict(dict), [], set()
        self.failures, self.failure = 0, 503
        for path in sorted(folder.rglob("*.dcm")):
            ds = pydicom.dcmread(path)
            series = self.studies[str(ds.StudyInstanceUID)].setdefault(str(ds.SeriesInstanceUID), [])
            series.append((ds, path.read_bytes()))
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests.append(self.path)
                outer.tokens.add(self.headers.get("Authorization"))
                if outer.failures:
                    outer.failures -= 1
                    self.send_error(outer.failure)
                    return
                kind, body = outer.answer(urlsplit(self.path))
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/dicom-web"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def answer(self, address):
        words, query = address.path.split("/")[2:], parse_qs(address.query)
        if words == ["studies"]:
            offset, limit = int(query.get("offset", ["0"])[0]), int(query["limit"][0])
            modality = query["ModalitiesInStudy"][0]
            chosen = [
                s for _, s in sorted(self.studies.items()) if any(v[0][0].Modality == modality for v in s.values())
            ]
            chosen = [s for s in chosen if self.day(s) >= query.get("StudyDate", [""])[0].rstrip("-")]
            heads = [next(iter(study.values()))[0][0] for study in chosen]
            return self.json(heads[offset : offset + limit], "StudyInstanceUID", "StudyDate", "PatientID")
        if words[2:] == ["series"]:
            heads = [series[0][0] for series in self.studies[words[1]].values()]
            return self.json(heads, "SeriesInstanceUID", "Modality")
        files = [content for _, content in self.studies[words[1]][words[3]]]
        parts = b"".join(b"--edge\r\nContent-Type: application/dicom\r\n\r\n" + content + b"\r\n" for content in files)
        return 'multipart/related; type="application/dicom"; boundary=edge', parts + b"--edge--\r\n"

    @staticmethod
    def day(study):
        return next(iter(study.values()))[0][0].StudyDate

    @staticmethod
    def json(heads, *keywords):
        rows = []
        for head in heads:
            ds = pydicom.Dataset()
            for keyword in keywords:
                setattr(ds, keyword, head[keyword].value)
            rows.append(ds.to_json_dict())
        return "application/dicom+json", json.dumps(rows).encode()

    def close(self):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Three studies, the last also with a CT that is no radiograph."""
    folder = tmp_path_factory.mktemp("web")
    uids = archive.write_archive(folder, 3, small=False)
    for path in folder.rglob("[0-9]*.dcm"):
        ds = pydicom.dcmread(path)
        ds.SeriesInstanceUID, ds.Modality = f"{ds.StudyInstanceUID}.1", "DX" if path.name[0] == "0" else "CR"
        ds.save_as(path)
    ds.SeriesInstanceUID, ds.SOPInstanceUID, ds.Modality, ds.StudyInstanceUID = "1.2.9", "1.2.9.1", "CT", uids[2]
    ds.save_as(folder / "ct.dcm")
    return folder


@pytest.fixture
def server(source, monkeypatch):
    monkeypatch.setattr(dicomweb, "_PAUSE_S", 0.01)
    served = Server(source)
    yield served
    served.close()
    dicomweb._client.cache_clear()


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    with Scorer.open(tiny.write_bundle(tmp_path_factory.mktemp("tiny") / "bundle"), "cpu", build="no") as opened:
        yield opened


def run(tables, url, scorer):
    places = Places(tables)
    make_manifest(places, "dicomweb", url, 4, lambda line: None)
    score_archive(places, archive.request_of(url, "bundle", base=url), archive.Inline(scorer), lambda line: None)
    return places


def test_the_tables_are_those_of_the_files(server, source, scorer, tmp_path):
    run(tmp_path / "web", server.url, scorer)
    archive.run(tmp_path / "files", source, archive.Inline(scorer))
    assert archive.digest(tmp_path / "web") == archive.digest(tmp_path / "files")
    assert [row["total"] for row in archive.rows(tmp_path / "web") if row["row"] == "study"] == [26] * 3
    assert not [path for path in server.requests if "1.2.9" in path]  # the CT is not fetched


def test_a_list_goes_on_after_any_study(server, monkeypatch):
    monkeypatch.setattr(dicomweb, "_PAGE", 1)
    found = list(WebArchive(server.url).files())
    assert [record["study"][-4:] for _, record in found] == ["1001", "1002", "1000"]  # of CR, then of DX
    for number, (place, _) in enumerate(found):
        assert list(WebArchive(server.url).files(place)) == found[number + 1 :]


def test_a_study_with_two_modalities_is_listed_once(server, tmp_path):
    _, content = server.studies[f"{archive.UID}.1001"][f"{archive.UID}.1001.1"][0]
    other = pydicom.dcmread(io.BytesIO(content))
    other.Modality = "DX"
    server.studies[f"{archive.UID}.1001"]["1.2.8"] = [(other, content)]
    places = Places(tmp_path)
    make_manifest(places, "dicomweb", server.url, 4, lambda line: None)
    entries = [entry for shard in places.shards() for entry in read_list(places.listed(shard))]
    assert [entry.files for entry in entries] == [(f"{archive.UID}.{1000 + number}",) for number in range(3)]
    assert entries[0].day == "20200105"
    assert entries[0].patient is not None


def test_a_server_that_fails_for_a_while_is_asked_again(server):
    server.failures = 2
    assert len(fetch_study(server.url, f"{archive.UID}.1000").radiographs) == 2


def test_a_server_that_refuses_is_not_asked_again(server):
    server.failures, server.failure = 1, 404
    with pytest.raises(dicomweb.Unreachable, match="HTTP status 404"):
        fetch_study(server.url, f"{archive.UID}.1000")
    assert len(server.requests) == 1


def test_a_server_that_does_not_answer(server, scorer, tmp_path):
    run(tmp_path / "whole", server.url, scorer)
    places = Places(tmp_path / "web")
    make_manifest(places, "dicomweb", server.url, 4, lambda line: None)
    server.failures = 100
    run(tmp_path / "web", server.url, scorer)
    assert {row["code"] for row in archive.rows(tmp_path / "web")} == {"source-unreachable"}
    with pytest.raises(ArchiveError, match="HTTP status 503"):
        list(WebArchive(server.url).files())
    server.failures = 0
    request = archive.request_of(server.url, "bundle", base=server.url)
    score_archive(places, request, archive.Inline(scorer), lambda line: None, retry="source-unreachable")
    assert archive.digest(tmp_path / "web") == archive.digest(tmp_path / "whole")


def test_a_token_is_sent_and_days_are_asked_for(server, monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("SPINESCORE_DICOMWEB_TOKEN", "secret")
    words = ["archive", server.url, "--out", str(tmp_path / "tables"), "--scan-only"]
    assert cli.main(words) == 0
    assert "3 studies" in capfd.readouterr().err
    assert server.tokens == {"Bearer secret"}
    assert cli.main([*words, "--since", "2020-03-01"]) == 0
    assert any("StudyDate=20200301-" in path for path in server.requests)
    assert "secret" not in "".join(path.read_text() for path in (tmp_path / "tables").rglob("*.json*"))
