"""Measurements of spinescore, and the phantom studies that they and the demo run on."""
