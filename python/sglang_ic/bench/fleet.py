"""The servers of all arms: which are up, who they are, and that they serve one model.

Servers stay up together where memory allows (on a CPU): a start costs half a minute or more, so
restarts would put an arm's blocks far apart in time, and a machine that changes speed meanwhile
would look like a difference between arms. What the idle servers take from the busy one is measured
(`others_cpu_sec`), so a report can show that it is little. With an accelerator, whose memory holds
one server, each is started for its loads of a round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sglang_ic.bench import endpoint
from sglang_ic.bench.arms import Arm
from sglang_ic.bench.endpoint import Identity
from sglang_ic.bench.interrupts import uninterrupted
from sglang_ic.bench.servers import LaunchedServer, ServerError


class SessionError(ValueError):
    """Arms that cannot be compared; the message is one line for the user."""


class Fleet:
    """Starts servers when they are needed; `stop` ends every one of them.

    Attributes:
        identities: who answers for each arm, once it was asked.
        servers: the last server that was started for each arm, running or not.
        num_starts: how often each arm's server was started; 0 for a URL.
    """

    def __init__(
        self, arms: Sequence[Arm], launch: Callable[[Arm], LaunchedServer], *, together: bool
    ) -> None:
        self._arms = {arm.name: arm for arm in arms}
        self._launch = launch
        self._together = together
        self._up: dict[str, LaunchedServer] = {}
        self.identities: dict[str, Identity] = {}
        self.servers: dict[str, LaunchedServer] = {}
        self.num_starts = dict.fromkeys(self._arms, 0)

    def start(self, meanwhile: Callable[[], object]) -> None:
        """Ask servers at URLs who they are; start the others if they stay up together.

        Args:
            meanwhile: called while they load.

        Raises:
            EndpointError, ServerError, SessionError: a server is missing, or serves another model.
        """
        for name, arm in self._arms.items():
            if arm.url is not None:
                self._meet(name)
        if self._together:
            for arm in self._arms.values():
                if arm.url is None:
                    self._start(arm)
        meanwhile()
        for name in self._up:
            self._up[name].wait_until_ready()
            self._meet(name)

    def ensure_up(self, name: str) -> None:
        """Start the server of an arm after stopping the others, unless it is up.

        Raises:
            EndpointError, ServerError, SessionError: as `start`, or another cannot be ended.
        """
        arm = self._arms[name]
        if arm.url is None and name not in self._up:
            for error in self.stop().values():
                raise error
            self._start(arm)
            self._up[name].wait_until_ready()
            self._meet(name)

    def url(self, name: str) -> str:
        return self._arms[name].url or self._up[name].url

    def check_alive(self, name: str) -> None:
        """Raises: ServerError: the server was started here and has ended."""
        if name in self._up:
            self._up[name].check_alive()

    def others_cpu_sec(self, name: str) -> float | None:
        """CPU time so far of the started servers of all other arms; None if there is none."""
        others = [server for arm, server in self._up.items() if arm != name]
        return sum(server.cpu_sec() for server in others) if others else None

    def stop(self) -> dict[str, ServerError | OSError]:
        """End every server that is up; what could not be ended stays up, and is told by arm."""
        failed: dict[str, ServerError | OSError] = {}
        with uninterrupted():
            for name in list(self._up):
                try:
                    self._up[name].stop()
                    del self._up[name]
                except (ServerError, OSError) as error:
                    failed[name] = error  # the others must end all the same
        return failed

    def _start(self, arm: Arm) -> None:
        with uninterrupted():
            self._up[arm.name] = self.servers[arm.name] = self._launch(arm)
        self.num_starts[arm.name] += 1

    def _meet(self, name: str) -> None:
        identity = endpoint.identify(self.url(name))
        for other, known in self.identities.items():
            if known.model != identity.model:
                raise SessionError(
                    f"arm {name!r} serves model {identity.model!r}, arm {other!r} serves "
                    f"{known.model!r}: compare one model, and give its servers one "
                    "--served-model-name"
                )
        self.identities[name] = identity
