"""Trains the networks of the shipped bundle on phantom studies, and measures how well they score others."""
