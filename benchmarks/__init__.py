"""Measurements of spinescore, and the phantom studies that they and the demo run on."""

from spinescore.runtime import silence  # noqa: F401  # before any engine is imported
