"""What a person or a supervisor tells a launcher that waits."""

import signal
import threading
from types import FrameType

from components.errors import InfraError


class Signals:
    """SIGINT: cancel. SIGTERM: let go. In the main thread alone, while the body runs."""

    def __init__(self) -> None:
        self.changed = threading.Event()
        self.is_cancelled = self.is_detached = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            self.is_cancelled = True
        else:
            self.is_detached = True
        self.changed.set()

    @property
    def came(self) -> bool:
        return self.is_cancelled or self.is_detached

    def pause(self, seconds: float) -> None:
        """Sleep so long, where there is nothing to cancel yet. Raises InfraError once one has come."""
        self.changed.wait(seconds)
        if self.came:
            raise InfraError("stopped before the stage began", "run it again")
