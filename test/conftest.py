"""Settings for all tests: property tests draw the same examples and have no time limit."""

from hypothesis import settings

# A busy machine must not fail a test, and a failure must be the same one when it is run again.
settings.register_profile("repository", deadline=None, derandomize=True)
settings.load_profile("repository")
