"""The results: every figure by name and model, with its standard error."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.evaluate.subjects import SUBJECTS

Figures = dict[str, dict[str, float]]
"""Name of the figure, then of the model: `figures["bits_per_byte"]["dpo"]`. The standard error of
`x` is in `x_se`, its change against the model before in `x_change` and `x_change_se`."""

DIGITS = 6
"""The rest depends on how many threads added the numbers."""


def put(figures: Figures, name: str, model: str, value: tuple[float, float | None]) -> None:
    """File a figure and its error, if it has one."""
    figures.setdefault(name, {})[model] = round(value[0], DIGITS)
    if value[1] is not None:
        figures.setdefault(f"{name}_se", {})[model] = round(value[1], DIGITS)


def put_with_changes(
    figures: Figures, name: str, values: dict[str, NDArray[np.float64]], summarise: Any
) -> None:
    """File a figure of every model and what each model changed against the one before.

    `values` are the models' values for the same documents, questions or pairs, so a change is a
    paired comparison; `summarise` maps such values to (figure, standard error).
    """
    for subject in SUBJECTS:
        if subject.name not in values:
            continue
        put(figures, name, subject.name, summarise(values[subject.name]))
        if subject.before in values:
            difference = values[subject.name] - values[str(subject.before)]
            put(figures, f"{name}_change", subject.name, summarise(difference))
