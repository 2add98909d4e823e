"""The steps from stored values to displayed grey that a header states: modality, VOI, presentation (PS3.4 N.2).

Each step maps values to values (PS3.3 C.11.1, C.11.2, C.11.6, C.7.6.3.1.2). The modality step gives the values that the
device measured, the VOI step selects the visible range, and the presentation step makes them bright or dark.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spinescore.runtime.notices import notice
from spinescore.runtime.reading.lookup import Lut, Values, lut_items, read_lut
from spinescore.runtime.reading.sopclasses import SOP_CLASSES, SopClass
from spinescore.runtime.reading.tags import ignored, is_stated, number, text, value

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["Display", "Rescale", "Window", "display_of"]

_HUGE = 1e100  # with larger factors, differences, products and quotients of values would overflow
_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_ANY = SopClass("another")


@dataclass(frozen=True)
class Rescale:
    """Rescale Slope and Intercept; a call maps stored values to measured ones."""

    slope: float
    intercept: float

    def __call__(self, values: Values) -> Values:
        return values * self.slope + self.intercept


@dataclass(frozen=True)
class Window:
    """A window with its function (PS3.3 C.11.2.1.2, C.11.2.1.3)."""

    center: float
    width: float
    function: str

    def greys(self, values: Values) -> Values:
        """Return greys in [0, 1] for measured values."""
        center, width = self.center, self.width
        if self.function == "SIGMOID":  # the exponent is limited so that exp does not overflow
            sigmoid: Values = 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - center) / width, -700.0, 700.0)))
            return sigmoid
        if self.function == "LINEAR":  # its ends are the centres of the first and last grey
            center, width = center - 0.5, width - 1.0
        if width == 0:
            return (values > center).astype(np.float64)
        return np.clip((values - center) / width + 0.5, 0.0, 1.0)


@dataclass(frozen=True)
class Display:
    """The three steps of one image. None is a step that changes nothing, or a VOI step that is not stated."""

    modality: Rescale | Lut | None
    voi: Window | Lut | None
    presentation: Lut | None
    inverted: bool

    def values(self, stored: Values) -> Values:
        """Return the values that the device measured."""
        return stored if self.modality is None else self.modality(stored)

    def shown(self, greys: Values) -> Values:
        """Return greys after the VOI step as they are presented."""
        if self.presentation is not None:
            return self.presentation.greys(np.round(greys * (self.presentation.entries.size - 1)))
        return 1.0 - greys if self.inverted else greys


def display_of(ds: Dataset, stored: Values, notes: list[str], window: str | None = None) -> Display:
    """Return the display steps of a header. `stored` are all values that can be stored.

    Of several windows and VOI LUTs the first is used, or the one whose explanation is `window` (case is ignored).
    A step that cannot be used adds a warning to `notes`.
    """
    modality = _modality(ds, stored, notes)
    values = stored if modality is None else modality(stored)
    voi = _voi(ds, values, window, notes)
    presentation = read_lut(ds, "PresentationLUTSequence", np.zeros(1), notes)
    return Display(modality, voi, presentation, _is_inverted(ds, notes if presentation is None else []))


def _modality(ds: Dataset, stored: Values, notes: list[str]) -> Rescale | Lut | None:
    """Return the Modality LUT, or else rescale slope and intercept (PS3.3 C.11.1)."""
    relation = (text(ds, "PixelIntensityRelationship") or "").upper()
    if relation and relation in SOP_CLASSES.get(text(ds, "SOPClassUID") or "", _ANY).undisplayed:
        return None
    lut = read_lut(ds, "ModalityLUTSequence", stored, notes)
    if lut is not None:
        return lut
    slope = _stated(ds, "RescaleSlope", "Rescale Slope", notes)
    intercept = _stated(ds, "RescaleIntercept", "Rescale Intercept", notes)
    if slope in (None, 1) and not intercept:
        return None
    if slope == 0:
        ignored(notes, "RescaleSlope", "Rescale Slope is 0 and was ignored")
        return None
    if max(abs(slope or 0.0), abs(intercept or 0.0)) > _HUGE:
        ignored(notes, "RescaleSlope", "Rescale Slope and Intercept are too large and were ignored")
        return None
    return Rescale(1.0 if slope is None else slope, intercept or 0.0)


def _stated(ds: Dataset, keyword: str, name: str, notes: list[str], index: int = 0) -> float | None:
    """Return a number of the header; if it is stated but not understood, None with a warning."""
    stated = number(ds, keyword, index)
    unread = value(ds, keyword) is None and is_stated(ds, keyword)  # pydicom could not convert it
    if stated is None and (unread or text(ds, keyword, index) is not None):
        ignored(notes, keyword, f"{name} is stated but not understood, and was ignored")
    return stated


def _voi(ds: Dataset, values: Values, explanation: str | None, notes: list[str]) -> Window | Lut | None:
    """Return a VOI LUT, or else a window (PS3.3 C.11.2.1); None if the header states neither."""
    luts = [
        (("lut", index), text(item, "LUTExplanation") or "")
        for index, item in enumerate(lut_items(ds, "VOILUTSequence"))
    ]
    names = value(ds, "WindowCenterWidthExplanation")
    names = [names] if isinstance(names, str) else names or []
    windows = [(("window", index), str(name).strip()) for index, name in enumerate(names)]
    kind, index = ("lut" if luts else "window"), 0
    if explanation is not None:
        places = {name.casefold(): place for place, name in reversed([*windows, *luts]) if name}
        if explanation.strip().casefold() in places:
            kind, index = places[explanation.strip().casefold()]
        else:
            stated = ", ".join(repr(name[:32]) for _, name in [*luts, *windows][:8] if name) or "none"
            sentence = f"no window has the explanation {explanation!r} (the header has: {stated}); the first was used"
            notes.append(notice("window-not-found", sentence))
    if kind == "lut" or (not luts and is_stated(ds, "VOILUTSequence")):
        lut = read_lut(ds, "VOILUTSequence", values, notes, index if kind == "lut" else 0)
        if lut is not None:
            return lut
        index = 0
    return _window(ds, index, notes)


def _window(ds: Dataset, index: int, notes: list[str]) -> Window | None:
    center = _stated(ds, "WindowCenter", "Window Center", notes, index)
    width = _stated(ds, "WindowWidth", "Window Width", notes, index)
    if center is None or width is None:
        return None
    if max(abs(center), width) > _HUGE or 0 < width < 1 / _HUGE:
        ignored(notes, "WindowWidth", "Window Center and Width are too large or too small and were ignored")
        return None
    function = (text(ds, "VOILUTFunction") or "LINEAR").upper()
    if function not in _FUNCTIONS:
        sentence = f"VOI LUT Function is none of {', '.join(_FUNCTIONS)}; the window was taken as LINEAR"
        notes.append(notice("greyscale-adjusted", sentence, tag="VOILUTFunction"))
        function = "LINEAR"
    if width <= 0 or (function == "LINEAR" and width < 1):
        ignored(notes, "WindowWidth", f"Window Width {width:g} is not allowed for {function}; the window was ignored")
        return None
    return Window(center, width, function)


def _is_inverted(ds: Dataset, notes: list[str]) -> bool:
    """Return whether the image is inverted. MONOCHROME1 and INVERSE ask for the same inversion (PS3.3 C.8.11.3.1.2)."""
    monochrome1 = text(ds, "PhotometricInterpretation") == "MONOCHROME1"
    shape = (text(ds, "PresentationLUTShape") or "").upper()
    if (shape == "IDENTITY" and monochrome1) or (shape == "INVERSE" and not monochrome1):
        sentence = f"Presentation LUT Shape {shape} contradicts the Photometric Interpretation; shown inverted"
        notes.append(notice("greyscale-adjusted", sentence, tag="PresentationLUTShape"))
    return monochrome1 or shape == "INVERSE"
