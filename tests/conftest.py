"""Settings for all tests: property tests draw the same cases in every run, and no test depends on the clock."""

from hypothesis import settings

settings.register_profile("spinescore", deadline=None, derandomize=True, database=None)
settings.load_profile("spinescore")
