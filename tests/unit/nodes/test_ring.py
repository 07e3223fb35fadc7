"""What agents have said, as the controller remembers it."""

import tracemalloc

from tasks.nodes.names import SAMPLES_ANNOTATION
from tasks.nodes.ring import _read, read_word, word_json
from tasks.nodes.risk import Sample
from tests.unit.nodes.builders import DEAR, NOW, word


def test_what_agents_have_said_is_remembered_in_less_than_100_mb() -> None:
    """However long the controller runs: each heartbeat of each node is another text."""
    samples = [
        Sample(NOW - 1800 * i, 1000 + i, 10 + i, 60 + i / 7, 89.5 + i, i / 100) for i in range(96)
    ]
    texts = [word_json(word(*DEAR, at=NOW + i, samples=tuple(samples))) for i in range(50)]
    tracemalloc.start()
    for text in texts:
        assert read_word({SAMPLES_ANNOTATION: text}) is not None
    each = tracemalloc.get_traced_memory()[0] / len(texts) + len(texts[0])
    tracemalloc.stop()
    assert each * _read.cache_parameters()["maxsize"] < 100e6
