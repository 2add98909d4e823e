"""Archives over HTTP by their two protocols, and their answers about one file."""

from __future__ import annotations

from helpers.hostile_http import Server, answer
from spinescore.runtime.appliance.configuration.endpoints import Web
from spinescore.runtime.appliance.sending.sendweb import OrthancDestination, StowDestination

KINDS = {"stow": StowDestination, "orthanc": OrthancDestination}


def opened(kind: str, server: Server, **more):
    return KINDS[kind]("vna", Web(server.url, **more))


def element(value, vr="UI"):
    return {"vr": vr, "Value": [value]}


def told(parcel, tag="00081199", reason=None, uid=None):
    """The answer of STOW-RS about one instance."""
    item = {"00081155": element(uid or parcel.sop_instance_uid)}
    if reason is not None:
        item["00081197"] = element(reason, "US")
    return {tag: {"vr": "SQ", "Value": [item]}}


def stored(kind: str, parcel):
    """The answer that a file was stored."""
    return answer(200, told(parcel) if kind == "stow" else {"Status": "Success"})


def found(kind: str, parcel):
    """The answer that the instance is there."""
    return answer(200, [{"00080018": element(parcel.sop_instance_uid)}] if kind == "stow" else [{"Type": "Instance"}])
