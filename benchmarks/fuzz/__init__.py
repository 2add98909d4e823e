"""Hostile radiographs, structured by tag: what the reader makes of thousands of mutated files."""
