"""A DICOM archive as a destination: a C-STORE SCU (PS3.4, annex B) that asks with C-FIND before it sends again.

Result files are sent as they lie in the spool. One association serves the files that are due together, and is closed
when nothing is due for a few seconds.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.uid import UID
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import (
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    SecondaryCaptureImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
)

from spinescore.runtime.appliance.delivery import SENT, Outcome, Parcel
from spinescore.runtime.reading.decoding.syntaxes import EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN

__all__ = ["DicomDestination"]
