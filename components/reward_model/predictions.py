"""What the reward model says of held-out answers, beside what the crowd said."""

import pyarrow as pa

from components.preference.crowd import Array, expected_reward
from components.preference.ratings import Ratings
from components.schemas import NUM_CATEGORIES

DISTRIBUTION = pa.list_(pa.float64(), NUM_CATEGORIES)

PREDICTIONS = pa.schema(
    [
        ("id", pa.string()),  # of the rated response
        ("prompt_id", pa.string()),
        ("candidate", pa.string()),
        ("crowd", DISTRIBUTION),
        ("predicted", DISTRIBUTION),
        ("crowd_reward", pa.float64()),
        ("predicted_reward", pa.float64()),
        ("bradley_terry", pa.float64()),  # the baseline's score; its zero means nothing
    ]
)


def predictions_table(ratings: Ratings, predicted: Array, bradley_terry: Array) -> pa.Table:
    """PREDICTIONS in the ratings' order; `predicted` [N, 6], `bradley_terry` [N]."""
    return pa.Table.from_pydict(
        {
            "id": ratings.ids,
            "prompt_id": ratings.prompt_ids,
            "candidate": ratings.candidates,
            "crowd": ratings.targets.tolist(),
            "predicted": predicted.tolist(),
            "crowd_reward": ratings.rewards,
            "predicted_reward": expected_reward(predicted),
            "bradley_terry": bradley_terry,
        },
        schema=PREDICTIONS,
    )
