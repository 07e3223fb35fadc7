"""A thread that looks at something again and again, and notes what should not have been seen."""

import threading
from typing import Self


class Onlooker:
    """Calls `look` while the body runs; `faults` is what it found, each fault once."""

    pause_s: float
    """Between two looks."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.num_looks = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def look(self) -> None:
        raise NotImplementedError

    def found(self, fault: str) -> None:
        if fault not in self.faults:
            self.faults.append(fault)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        try:
            while not self._stopped.wait(self.pause_s):
                self.look()
                self.num_looks += 1
        except Exception as error:  # noqa: BLE001  nobody would hear of it from this thread
            self.faults.append(f"the {type(self).__name__.lower()} ended: {error!r}")
