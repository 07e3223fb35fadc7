"""A process that dies at a chosen moment, in this process: what a kill leaves on the disk."""

from collections.abc import Sequence
from typing import Any

import pytest


class Killed(BaseException):
    """What no handler of the code sees, as a kill."""


def die_after(
    monkeypatch: pytest.MonkeyPatch, num_calls: int, changes: Sequence[tuple[Any, str]]
) -> None:
    """Raise Killed in place of the next call of `changes` (owner and name) after `num_calls` of them."""
    left = [num_calls]

    def dying(function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if not left[0]:
                raise Killed
            left[0] -= 1
            return function(*arguments, **options)

        return call

    for owner, name in changes:
        monkeypatch.setattr(owner, name, dying(getattr(owner, name)))
