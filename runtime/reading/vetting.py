"""Why a radiograph cannot be scored, if its header or its size alone shows that."""

from __future__ import annotations

from spinescore.runtime.study import Radiograph, Reject

__all__ = ["MIN_SIDE_PX", "MODALITIES", "vet"]

# Projection radiographs by DICOM's Modality (0008,0060). A header without a modality counts as one of them.
MODALITIES = ("CR", "DX", "RF", "XA")

# Six discs in 128 pixels leave 20 pixels for a vertebra, and an erosion of a corner would have two of them.
MIN_SIDE_PX = 128


def vet(radiograph: Radiograph) -> Reject | None:
    """Return the reason why a radiograph cannot be scored, or None if header and size allow it."""
    name = radiograph.source or "The radiograph"
    rows, columns = radiograph.rows, radiograph.columns
    if radiograph.modality is not None and radiograph.modality not in MODALITIES:
        code = "not-radiograph"
        message = f"{name} has modality {radiograph.modality}; give a radiograph ({', '.join(MODALITIES)})."
    elif radiograph.view == "other":
        code, message = "not-lateral", f"{name} is no lateral projection by its header; give the lateral one."
    elif min(rows, columns) < MIN_SIDE_PX:
        code = "too-small"
        message = f"{name} has {rows} x {columns} pixels; at least {MIN_SIDE_PX} each way are needed."
    else:
        return None
    return Reject(code, message, radiograph.source, radiograph.region)
