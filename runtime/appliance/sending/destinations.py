"""The destinations by the `kind` of their table in the configuration. Each module is imported if its kind is used."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from spinescore.runtime.appliance.clock import Clock
from spinescore.runtime.appliance.configuration.config import Config, Destination, Node
from spinescore.runtime.appliance.network import client_context
from spinescore.runtime.appliance.sending.commitment import note_report
from spinescore.runtime.appliance.sending.delivery import Destination as Place
from spinescore.runtime.appliance.sending.sendfolder import FolderDestination
from spinescore.runtime.appliance.store.places import Places

__all__ = ["open_destination"]

_Opener = Callable[[Destination, Config, Clock, Places], Place]


def open_destination(destination: Destination, config: Config, clock: Clock, places: Places) -> Place:
    """Return the place that a table `destination` means. Raises `OSError` for files of TLS."""
    return _OPENERS[destination.kind](destination, config, clock, places)


def _folder(destination: Destination, *_: object) -> Place:
    assert destination.path is not None
    return FolderDestination(destination.name, Path(destination.path))


def _dicom(destination: Destination, config: Config, clock: Clock, places: Places) -> Place:
    from spinescore.runtime.appliance.sending.senddicom import Archive, DicomDestination

    assert destination.host is not None
    assert destination.port is not None
    assert destination.ae_title is not None
    tls = None if destination.tls is None else client_context(destination.tls)
    calling = config.node.ae_title if config.node else Node().ae_title
    archive = Archive(destination.host, destination.port, destination.ae_title, calling, tls)
    return DicomDestination(destination.name, archive, clock, partial(note_report, places, clock))


def _stow(destination: Destination, *_: object) -> Place:
    from spinescore.runtime.appliance.sending.sendstow import StowDestination

    return StowDestination(destination.name, destination.web)


def _orthanc(destination: Destination, *_: object) -> Place:
    from spinescore.runtime.appliance.sending.sendorthanc import OrthancDestination

    return OrthancDestination(destination.name, destination.web)


_OPENERS: dict[str, _Opener] = {"folder": _folder, "dicom": _dicom, "stow": _stow, "orthanc": _orthanc}
