"""The error types of a stage. Each answers one question: who must act?

The exit codes follow sysexits.h where it has a fitting one, and are part of the contract between
`tasks.pod` (which exits with them) and whoever watches it.
"""


class StageError(Exception):
    """An expected failure: a message that says what and where, and a hint that says what to do next."""

    kind = "bug"
    exit_code = 70

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def line(self) -> str:
        """Kind, what, where and what to do next, on one line."""
        return f"{self.kind} error: {self.message} {self.hint}".strip()


class UserError(StageError):
    """The user must act: a wrong parameter, a model too large for the memory, a loss that is NaN."""

    kind = "user"
    exit_code = 64


class DataError(StageError):
    """The data must be mended: missing, truncated, of another digest, or failing its contract."""

    kind = "data"
    exit_code = 65


class NodeUnhealthy(StageError):
    """The machine is sick; the same work belongs on another one."""

    kind = "node"
    exit_code = 69


class InfraError(StageError):
    """The surroundings failed for a while (network, store, a killed process); trying again may help."""

    kind = "infra"
    exit_code = 75


BUG_EXIT_CODE = StageError.exit_code
KIND_OF_EXIT_CODE = {0: "ok"} | {
    cls.exit_code: cls.kind for cls in (StageError, UserError, DataError, NodeUnhealthy, InfraError)
}
ERROR_OF_KIND: dict[str, type[StageError]] = {
    cls.kind: cls for cls in (StageError, UserError, DataError, NodeUnhealthy, InfraError)
}
