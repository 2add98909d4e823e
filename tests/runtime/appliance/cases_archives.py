"""Run as `python cases_archives.py CASE FOLDER` in a network namespace: see test_archives."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pytest
from pydicom import dcmread

from helpers import appliance
from helpers.loopback import (
    DICOMWEB,
    NODE,
    ORTHANC,
    PASSWORD,
    STORESCP,
    WEB,
    ask,
    instances,
    listens,
    orthanc,
    raise_loopback,
    reports,
    serve,
    states,
    stored,
    storescp,
    wait_until,
)
from spinescore.runtime.appliance.configuration.endpoints import Web
from spinescore.runtime.appliance.fault import Denied
from spinescore.runtime.appliance.sending.delivery import SENT, Outcome, Parcel
from spinescore.runtime.appliance.sending.senddicom import Archive, DicomDestination
from spinescore.runtime.appliance.sending.sendweb import OrthancDestination, StowDestination


def parcels(folder: Path) -> list[Parcel]:
    """The DICOM results of one scored study."""
    from spinescore.runtime import load_study, write_results

    bundle = appliance.write_bundle(folder / "bundle")
    study = load_study(*appliance.tiny_files(folder / "study"))
    report = appliance.open_scorer(bundle).score(study)
    paths = sorted(map(Path, write_results(study, report, folder / "results", formats=("sr", "gsps", "sc"))))
    headers = [dcmread(path, stop_before_pixels=True) for path in paths]
    return [
        Parcel(path, "sr", "", ds.SOPInstanceUID, ds.StudyInstanceUID, 1)
        for path, ds in zip(paths, headers, strict=True)
    ]


def destination(port: int, title: str = "ARCHIVE") -> DicomDestination:
    return DicomDestination("archive", Archive("127.0.0.1", port, title, "SPINESCORE"), appliance.FakeClock())


def case_storescp_stores_the_same_objects(folder: Path) -> None:
    """With storescp."""
    sent = parcels(folder)
    archive = destination(STORESCP)
    with storescp(folder / "archive"):
        assert [archive.send(parcel) for parcel in sent] == [SENT] * len(sent)
        assert archive.holds(sent[0]) is False  # it cannot be asked
        archive.close()
    objects = {ds.SOPInstanceUID: ds for ds in map(dcmread, (folder / "archive").iterdir())}
    assert len(objects) == len(sent) >= 3
    assert all(objects[parcel.sop_instance_uid] == dcmread(parcel.path) for parcel in sent)


def case_orthanc_says_what_it_has(folder: Path) -> None:
    """With Orthanc."""
    sent = parcels(folder)
    archive = destination(ORTHANC, "ORTHANC")
    with orthanc(folder / "orthanc"):
        assert archive.holds(sent[0]) is False
        assert archive.send(sent[0]) == SENT
        assert archive.holds(sent[0]) is True
        assert archive.holds(sent[1]) is False
        assert archive.send(sent[0]) == SENT  # a resend is no fault
        archive.close()
        assert instances() == [sent[0].sop_instance_uid]


def case_an_archive_that_takes_no_reports_refuses_them_alone(folder: Path) -> None:
    """With storescp, which is told to take secondary captures only."""
    profile = folder / "scp.cfg"
    profile.write_text(
        "[[TransferSyntaxes]]\n[Plain]\nTransferSyntax1 = LocalEndianExplicit\nTransferSyntax2 = LittleEndianImplicit\n"
        "[[PresentationContexts]]\n[Pictures]\nPresentationContext1 = SecondaryCaptureImageStorage\\Plain\n"
        "[[Profiles]]\n[Default]\nPresentationContexts = Pictures\n"
    )
    sent = parcels(folder)
    archive = destination(STORESCP)
    with storescp(folder / "archive", "-xf", str(profile), "Default"):
        outcomes = {dcmread(parcel.path).SOPClassUID.name: archive.send(parcel) for parcel in sent}
        archive.close()
    assert outcomes["Secondary Capture Image Storage"] == SENT
    report = outcomes["Comprehensive 3D SR Storage"]
    assert report.kind == "refused"
    assert "Comprehensive 3D SR Storage" in report.message


def case_an_archive_that_is_not_there_is_tried_later(folder: Path) -> None:
    """With storescp, which is started late and ended in between."""
    sent = parcels(folder)
    archive = destination(STORESCP)
    for _ in range(2):
        with pytest.raises(ConnectionError, match=r"ARCHIVE at 127.0.0.1:11113 cannot be reached"):
            archive.send(sent[0])
        with storescp(folder / "archive"):
            assert archive.send(sent[0]) == SENT
        wait_until(lambda: not listens(STORESCP), "storescp ending")
        while archive._association and archive._association.is_established:
            time.sleep(0.05)


def configuration(folder: Path, tables: str) -> Path:
    """The configuration of a service with these tables."""
    bundle, path = appliance.write_bundle(folder / "bundle"), folder / "appliance.toml"
    path.write_text(
        f'[spool]\npath = "spool"\nreserve_gb = 0.001\n[score]\nbundle = "{bundle}"\ndevice = "cpu"\n'
        f"[study]\nquiet_s = 20\nquiet_complete_s = 0\n{tables}"
    )
    return path


def service(folder: Path, port: int, title: str, more: str = "") -> Path:
    """The configuration of a node with a modality, and an archive that may report to it."""
    return configuration(
        folder,
        f'[node]\nhost = "127.0.0.1"\nport = {NODE}\n'
        '[[peer]]\nae_title = "MODALITY"\nhost = "127.0.0.1"\n'
        f'[[peer]]\nae_title = "{title}"\nhost = "127.0.0.1"\n'
        f'[[destination]]\nname = "archive"\nkind = "dicom"\nhost = "127.0.0.1"\nport = {port}\nae_title = "{title}"\n'
        f'results = ["sr", "sc"]\n{more}',
    )


def send_studies(folder: Path, count: int) -> set[str]:
    """Send studies with dcmsend; return their Study Instance UIDs."""
    uids = set()
    for number in range(count):
        files = appliance.tiny_files(folder / f"study{number}", f"1.2.3.{number + 1}")
        uids.add(str(dcmread(files[0]).StudyInstanceUID))
        words = ["dcmsend", "-aet", "MODALITY", "-aec", "SPINESCORE", "127.0.0.1", NODE, *files]
        subprocess.run([str(word) for word in words], check=True)
    return uids


def case_a_study_goes_from_the_modality_to_the_archive(folder: Path) -> None:
    """With dcmsend and storescp."""
    archive = folder / "archive"
    with storescp(archive), serve(service(folder, STORESCP, "ARCHIVE")):
        sent = send_studies(folder, 3)
        wait_until(lambda: len(reports(archive)) >= 3, "the delivery of three reports")
        wait_until(lambda: len(list(archive.glob("SC*"))) >= 6, "the delivery of six pictures")
        time.sleep(1.0)
        assert reports(archive) == sorted(sent)
        assert len(list(archive.glob("SC*"))) == 6


def case_an_archive_that_was_down_gets_each_report_once(folder: Path) -> None:
    """With dcmsend and Orthanc; the service is killed meanwhile."""
    config = service(folder, ORTHANC, "ORTHANC")
    with serve(config) as running:
        sent = send_studies(folder, 3)
        spool = folder / "spool"
        wait_until(lambda: len(list((spool / "results").glob("*/set.json"))) == 3, "the scoring of three studies")
        running.kill()
        running.wait()
    wait_until(lambda: not listens(NODE), "the end of the service")
    with orthanc(folder / "orthanc"), serve(config):
        wait_until(lambda: len(instances()) >= 9, "the delivery of three reports and six pictures")
        time.sleep(1.0)
        assert len(instances()) == len(sent) * 3


def case_orthanc_confirms_what_it_keeps(folder: Path) -> None:
    """With dcmsend and Orthanc, whose reports come on associations of its own."""
    config = service(folder, ORTHANC, "ORTHANC", "commitment = true\n")
    node = {"DicomModalities": {"spinescore": ["SPINESCORE", "127.0.0.1", NODE]}}
    with orthanc(folder / "orthanc", **node), serve(config):
        send_studies(folder, 2)
        wait_until(
            lambda: states(config)["destinations"].get("archive") == {"committed": 6},
            "the confirmation of two reports and four pictures",
        )
        assert len(instances()) == 6


def case_an_archive_with_stow_stores_the_same_bytes(folder: Path) -> None:
    """With Orthanc and libOrthancDicomWeb.so."""
    sent = parcels(folder)
    archive = StowDestination("vna", Web(f"http://127.0.0.1:{WEB}/dicom-web"))
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:8042 cannot be reached"):
        archive.send(sent[0])
    with orthanc(folder / "orthanc", **DICOMWEB):
        assert archive.holds(sent[0]) is False
        assert [archive.send(parcel) for parcel in sent] == [SENT] * len(sent)
        assert [archive.holds(parcel) for parcel in sent] == [True] * len(sent)
        assert archive.send(sent[0]) == SENT  # a resend is no fault
        assert instances() == sorted(parcel.sop_instance_uid for parcel in sent)
        assert all(stored(parcel.sop_instance_uid) == parcel.path.read_bytes() for parcel in sent)
        damaged = folder / "damaged.dcm"
        ds = dcmread(sent[0].path)
        del ds.StudyInstanceUID
        ds.save_as(damaged)
        assert archive.send(replace(sent[0], path=damaged)).kind in ("refused", "later")
    archive = StowDestination("vna", Web(f"http://127.0.0.1:{WEB}/wrong"))
    with orthanc(folder / "orthanc", **DICOMWEB):
        assert archive.send(sent[0]) == Outcome("later", "it answered with the HTTP status 404")


def case_orthanc_takes_results_by_its_rest(folder: Path) -> None:
    """With Orthanc, which has a password."""
    sent = parcels(folder)
    (folder / "secret").write_text("open barley\n")
    web = Web(f"http://127.0.0.1:{WEB}/", user="spinescore", password_file=str(folder / "secret"))
    archive = OrthancDestination("orthanc", web)
    with orthanc(folder / "orthanc", **PASSWORD):
        with pytest.raises(Denied, match=r"the user spinescore with the password in .*secret"):
            archive.send(sent[0])
        assert archive.holds(sent[0]) is False
        (folder / "secret").write_text("open sesame\n")
        assert archive.holds(sent[0]) is False
        assert [archive.send(parcel) for parcel in sent] == [SENT] * len(sent)
        assert archive.send(sent[0]) == SENT
        assert [archive.holds(parcel) for parcel in sent] == [True] * len(sent)
        garbage = folder / "garbage.dcm"
        garbage.write_bytes(b"garbage")
        assert archive.send(replace(sent[0], path=garbage)).kind == "refused"
    with orthanc(folder / "orthanc"):
        assert instances() == sorted(parcel.sop_instance_uid for parcel in sent)
        assert all(stored(parcel.sop_instance_uid) == parcel.path.read_bytes() for parcel in sent)


def put_studies(folder: Path, numbers: range) -> None:
    """Give studies to Orthanc, and with each a file that is no radiograph."""
    for number in numbers:
        files = appliance.tiny_files(folder / f"study{number}", f"1.2.3.{number + 1}")
        other = dcmread(files[0])
        other.SOPClassUID = other.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number + 1}.9"
        other.save_as(folder / f"study{number}" / "ct.dcm")
        for path in (*files, folder / f"study{number}" / "ct.dcm"):
            ask("/instances", "POST", path.read_bytes())


def case_studies_come_from_orthanc_and_their_reports_return(folder: Path) -> None:
    """With Orthanc and libOrthancDicomWeb.so. The service and Orthanc are killed meanwhile, and Orthanc begins anew."""
    config = configuration(
        folder,
        f'[[source]]\nname = "pacs"\nkind = "orthanc"\nurl = "http://127.0.0.1:{WEB}"\npoll_s = 0.2\n'
        f'[[destination]]\nname = "vna"\nkind = "stow"\nurl = "http://127.0.0.1:{WEB}/dicom-web"\n'
        'results = ["sr", "sc"]\n',
    )
    with orthanc(folder / "orthanc", StableAge=1, **DICOMWEB):
        put_studies(folder, range(2))
        with serve(config, port=None) as running:
            wait_until(lambda: len(instances()) >= 9, "some of the results")
            put_studies(folder, range(2, 4))
            running.kill()
            running.wait()
        with serve(config, port=None):
            wait_until(lambda: len(instances()) == 4 * 6, "the results of four studies")
            time.sleep(3.0)  # StableStudy, and our own results as changes
            assert len(instances()) == 4 * 6
            told = states(config)
    assert told["studies"]["delivered"] == 4
    assert told["received_objects"] == 8  # neither the other objects nor our own results
    assert told["quarantined"] == 0
    shutil.rmtree(folder / "orthanc")
    with serve(config, port=None):
        wait_until(lambda: "source-unreachable" in str(states(config)["last_faults"]), "the fault of the source")
        with orthanc(folder / "orthanc", **DICOMWEB):
            put_studies(folder, range(3, 5))
            wait_until(lambda: states(config)["studies"]["delivered"] == 5, "the new study's delivery")
            time.sleep(1.0)
            assert len(instances()) == 2 * 3 + 3  # the results of the other one were delivered before
    assert states(config)["received_objects"] == 10


if __name__ == "__main__":
    raise_loopback()
    target = Path(sys.argv[2])
    globals()[f"case_{sys.argv[1]}"](target)
    shutil.rmtree(target, ignore_errors=True)
