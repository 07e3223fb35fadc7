import numpy as np
import pyarrow as pa
import pytest

from components.errors import DataError
from components.preference.ratings import read_ratings
from components.schemas import RATED_RESPONSES
from components.shards import write_shards

UNIFORM = [1 / 6] * 6


def write(folder, rows):
    filled = [
        {
            "id": str(i),
            "prompt_id": "p",
            "document_id": "",
            "prompt": "What?",
            "response": "That.",
            "candidate": "right",
            "prior": UNIFORM,
            "votes": [0, 1],
            "rater": "simulated crowd (synthetic)",
            "synthetic": True,
        }
        | row
        for i, row in enumerate(rows)
    ]
    write_shards(folder, [pa.Table.from_pylist(filled, RATED_RESPONSES)], RATED_RESPONSES, 100)


def test_targets_are_the_posterior_of_the_smoothed_votes(tmp_path):
    write(tmp_path, [{"prior": [0.5, 0.3, 0.1, 0.05, 0.03, 0.02], "votes": [0, 0, 1, 5]}])
    ratings = read_ratings(tmp_path, prior_strength=6.0, smoothing=0.1)
    # 3 + 1.8 + 0.2 (from 1 and 5), 1.8 + 0.9 + 0.2 (from 0), ...: by hand.
    want = np.array([3 + 1.8 + 0.1 + 0.1, 1.8 + 0.9 + 0.2, 0.6, 0.3, 0.18, 0.12 + 0.9]) / 10
    np.testing.assert_allclose(ratings.targets[0], want, atol=1e-12)
    assert ratings.counts[0].tolist() == [2, 1, 0, 0, 0, 1]
    assert ratings.raters == ("simulated crowd (synthetic)",)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no rated response"),
        ([{"prior": [1.0] * 6}], "does not sum to 1"),
        ([{"votes": [7]}], "categories 0..5"),
        ([{}, {"votes": []}], "without a vote"),
    ],
)
def test_bad_ratings_are_named(tmp_path, rows, message):
    write(tmp_path, rows)
    with pytest.raises(DataError, match=message):
        read_ratings(tmp_path, prior_strength=6.0, smoothing=0.1)
