"""The pre-check of a node: `python -m components.preflight` before a stage, `inspect` in the agent."""

from components.preflight.inspection import Expected, inspect

__all__ = ["Expected", "inspect"]
