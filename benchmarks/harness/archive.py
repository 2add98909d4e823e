"""A DICOM archive of pynetdicom on the loopback interface that notes when, and how often, each report arrives."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

__all__ = ["Archive"]


class Archive:
    """A storage SCP that also says which reports it has (C-FIND). Close it."""

    def __init__(self) -> None:
        from pynetdicom import AE, evt
        from pynetdicom.sop_class import (  # type: ignore[attr-defined]
            Comprehensive3DSRStorage,
            StudyRootQueryRetrieveInformationModelFind,
        )

        self.arrived_s: dict[str, float] = {}  # by Study Instance UID
        self.arrivals: Counter[str] = Counter()  # by SOP Instance UID
        self.study_of: dict[str, str] = {}
        self._news = threading.Condition()
        entity = AE("ARCHIVE")
        entity.add_supported_context(Comprehensive3DSRStorage)
        entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        server = entity.start_server(
            ("127.0.0.1", 0),
            block=False,
            evt_handlers=[(evt.EVT_C_STORE, self._take), (evt.EVT_C_FIND, self._find)],
        )
        assert server is not None
        self._server = server
        self.port = int(server.server_address[1])

    def _take(self, event: Any) -> int:
        instance, study = str(event.dataset.SOPInstanceUID), str(event.dataset.StudyInstanceUID)
        with self._news:
            self.arrived_s[study] = time.perf_counter()
            self.arrivals[instance] += 1
            self.study_of[instance] = study
            self._news.notify_all()
        return 0x0000

    def _find(self, event: Any) -> Iterator[tuple[int, Any]]:
        if str(event.identifier.get("SOPInstanceUID", "")) in self.arrivals:
            yield 0xFF00, event.identifier

    def wait_for(self, count: int, wait_s: float) -> None:
        """Wait until reports of `count` studies arrived. Raises `TimeoutError` if none arrives for `wait_s` seconds."""
        with self._news:
            while (arrived := len(self.arrived_s)) < count:
                if not self._news.wait_for(lambda: len(self.arrived_s) > arrived, wait_s):
                    raise TimeoutError(f"{arrived} of {count} reports arrived, and none for {wait_s:g} s")

    def close(self) -> None:
        self._server.shutdown()
