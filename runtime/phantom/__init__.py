"""Synthetic spine studies with known truth: lateral radiographs as DICOM files, and the grades that were drawn."""

from spinescore.runtime.phantom.study import PhantomView, draw_study, draw_view, write_study

__all__ = ["PhantomView", "draw_study", "draw_view", "write_study"]
