"""Settings for all tests: property tests draw the same examples, and signals are not ignored."""

import signal

from hypothesis import settings

# A busy machine must not fail a test, and a failure must be the same one when it is run again.
settings.register_profile("repository", deadline=None, derandomize=True)
settings.load_profile("repository")

# Under nohup, or as a shell's background job, pytest and all that it starts would ignore some, and
# the tools rightly leave that so. A handler that does nothing ignores them for pytest alone.
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *_: None)
