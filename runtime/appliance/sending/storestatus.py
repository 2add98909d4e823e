"""The meaning of an archive's status for one object (PS3.4, table B.2-1; PS3.7, annex C): C-STORE and STOW-RS."""

from __future__ import annotations

from spinescore.runtime.appliance.sending.delivery import SENT, Outcome

__all__ = ["PROCESSING_FAILURE", "SUCCESS", "outcome_of"]

SUCCESS, PROCESSING_FAILURE = 0x0000, 0x0110
_DUPLICATE = 0x0111
_STORED_WITH_WARNING = range(0xB000, 0xC000)
_OUT_OF_RESOURCES = range(0xA700, 0xA800)


def outcome_of(status: int) -> Outcome:
    """Return the outcome that a status means. The archive's comment on it may name the patient, and is left out."""
    if status in (SUCCESS, _DUPLICATE) or status in _STORED_WITH_WARNING:
        return SENT
    message = f"it answered with the status 0x{status:04X}"
    later = status in _OUT_OF_RESOURCES or status == PROCESSING_FAILURE
    return Outcome("later" if later else "refused", message)
