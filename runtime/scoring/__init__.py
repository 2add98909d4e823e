"""Scores a study on an open bundle: selection, localization, crops, grades, and the report."""
