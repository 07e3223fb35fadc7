"""A recording: what a machine said once, to be judged again by the same code.

`python -m components.preflight --record FILE` writes one, `--replay FILE` judges it. A recording
that nobody's machine said is labelled `synthetic`.
"""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from components.errors import UserError
from components.preflight.readings import Measurements, Readings
from components.preflight.report import CLOSED
from components.preflight.thresholds import Sku
from components.section import explain


@dataclass(frozen=True)
class Recording:
    """A `Source` that says the same every time."""

    __pydantic_config__ = CLOSED

    note: str
    """What was recorded, or why it was made up."""
    synthetic: bool
    readings: Readings
    measurements: Measurements

    def read(self) -> Readings:
        return self.readings

    def measure(self, readings: Readings, sku: Sku, checks: Collection[str]) -> Measurements:
        return self.measurements


def save(recording: Recording, path: Path) -> None:
    """As JSON, which `load` gives back unchanged."""
    path.write_text(json.dumps(asdict(recording), indent=1) + "\n", encoding="utf-8")


def load(path: Path) -> Recording:
    """Raises UserError for a file that is missing, no JSON, or of another shape."""
    try:
        return TypeAdapter(Recording).validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", "record one with --record") from error
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error)[0]}", "record it again with --record") from error
