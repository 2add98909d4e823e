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
    name, region = radiograph.source or "The radiograph", radiograph.region

    def reject(code: str, message: str) -> Reject:
        return Reject(code, message, radiograph.source, region)

    if radiograph.modality is not None and radiograph.modality not in MODALITIES:
        return reject(
            "not-radiograph", f"{name} has modality {radiograph.modality}; give a radiograph ({', '.join(MODALITIES)})."
        )
    if radiograph.view == "other":
        return reject("not-lateral", f"{name} is no lateral projection by its header; give the lateral one.")
    if min(radiograph.rows, radiograph.columns) < MIN_SIDE_PX:
        return reject(
            "too-small",
            f"{name} has {radiograph.rows} x {radiograph.columns} pixels; at least {MIN_SIDE_PX} each way are needed.",
        )
    return None
