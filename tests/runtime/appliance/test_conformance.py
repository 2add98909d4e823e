"""The conformance statement is what the node negotiates, with a peer that is not ours."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("pynetdicom")

from pydicom.uid import UID
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from helpers import appliance
from spinescore.runtime.appliance.configuration.config import Node, Peer
from spinescore.runtime.appliance.receiving.pduguard import Limits
from spinescore.runtime.appliance.receiving.receive import (
    CLASSES,
    IMPLEMENTATION_CLASS_UID,
    TRANSFER_SYNTAXES,
    Receiver,
)
from spinescore.runtime.appliance.sending.senddicom import SENT_CLASSES, SENT_SYNTAXES
from spinescore.runtime.appliance.sending.sendweb import REFUSALS

PAGE = Path(__file__).parents[3] / "docs" / "conformance.md"


class Silent:
    """Takes nothing, and tells nothing."""

    def store(self, number, peer, parts) -> None:
        raise ValueError("not wanted")

    def ready(self) -> bool:
        return True

    def released(self, association) -> None: ...

    def refused(self, peer, reason, kind) -> None: ...

    def committed(self, peer, report) -> None: ...


def test_the_page_states_what_the_code_negotiates():
    """Each row of a class or a syntax is there, and no other; so are the limits and what parks a file."""
    provider, user = PAGE.read_text("utf-8").split("## As a service class ")[1:]
    ends = (Verification, StorageCommitmentPushModel, StudyRootQueryRetrieveInformationModelFind)
    for part, uids in ((provider, {*CLASSES.values(), *TRANSFER_SYNTAXES, *ends[:2]}),
                       (user, {*SENT_CLASSES, *SENT_SYNTAXES, *ends[1:]})):  # fmt: skip
        rows = re.findall(r"^\| ([^|]+) \| ([0-9.]+) \|", part, flags=re.MULTILINE)
        assert dict(rows) == {UID(uid).name: uid for uid in uids}
    node, limits = Node(), Limits()
    for stated in (
        f"| `{node.ae_title}`, {node.port}; ", f" {IMPLEMENTATION_CLASS_UID} |", f"| {limits.max_pdu} bytes",
        f"| {limits.max_associations}, ", f"| {limits.max_object >> 20} MiB, ", f"| {limits.idle_s:g} s |",
        f"| {limits.request_s:g}, {limits.pdu_s:g}, {limits.object_s:g} s |", ", ".join(map(str, REFUSALS)),
    ):  # fmt: skip
        assert stated in PAGE.read_text("utf-8"), stated


def stated() -> tuple[set[str], set[str]]:
    """The SOP classes and the transfer syntaxes that the page states for receiving."""
    part = PAGE.read_text("utf-8").partition("## As a service class provider")[2].partition("## As")[0]
    rows = re.findall(r"^\| [^|]+ \| ([0-9.]+) \|(.*)$", part, flags=re.MULTILINE)
    classes = {uid for uid, more in rows if "all of the next table" in more}
    return classes, {uid for uid, more in rows if not more.strip()}


def profile(sop_class: str, syntaxes: list[str]) -> str:
    """A configuration of storescu that offers one class in each transfer syntax, in a context of its own."""
    lines = ["[[TransferSyntaxes]]"]
    for number, uid in enumerate(syntaxes):
        lines += [f"[S{number}]", f"TransferSyntax1 = {uid}"]
    lines += ["[[PresentationContexts]]", "[Offered]"]
    for number in range(len(syntaxes)):
        lines.append(f"PresentationContext{number + 1} = {sop_class}\\S{number}")
    return "\n".join([*lines, "[[Profiles]]", "[Default]", "PresentationContexts = Offered", ""])


@pytest.mark.skipif(shutil.which("storescu") is None, reason="needs dcmtk")
def test_dcmtk_negotiates_what_the_page_states(tmp_path):
    classes, syntaxes = stated()
    assert classes == set(CLASSES.values())
    other_class, other_syntax = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.4.100"  # CT; MPEG2
    file = appliance.tiny_files(tmp_path / "study")[0]
    node = Receiver("SPINESCORE", [Peer("MODALITY", "127.0.0.1", classes=tuple(CLASSES))], Silent(),
                    host="127.0.0.1", port=0)  # fmt: skip
    node.start()
    try:
        for sop_class in (*classes, other_class):
            offered = [*sorted(syntaxes), other_syntax]
            (tmp_path / "scu.cfg").write_text(profile(sop_class, offered))
            words = ["-xf", str(tmp_path / "scu.cfg"), "Default", "-aet", "MODALITY", "-aec", "SPINESCORE"]
            words = ["storescu", "-d", *words, "127.0.0.1", str(node.port), str(file)]
            told = subprocess.run(words, capture_output=True, text=True, timeout=60)
            answer = (told.stdout + told.stderr).partition("END A-ASSOCIATE-RQ")[2]
            accepted = re.findall(r"Context ID:\s+(\d+) \(Accepted\)", answer)
            wanted = len(syntaxes) if sop_class in classes else 0
            assert [int(number) // 2 for number in accepted] == list(range(wanted)), sop_class
    finally:
        node.stop(1.0)
