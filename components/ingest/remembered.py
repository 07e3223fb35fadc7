"""Ratings that are paid for once: what a slow rater said survives a failed attempt."""

import json
import threading
from pathlib import Path

from components.ingest.candidates import Candidate
from components.ingest.crowd import Rater, Rating
from components.schemas import content_id


class Remembered:
    """A rater whose ratings are kept in a file of JSON lines and not asked for again.

    `identity` names all that decides a rating beside the prompt and the response.
    """

    def __init__(self, rater: Rater, path: Path, identity: str) -> None:
        self.name = rater.name
        self.num_concurrent = rater.num_concurrent
        self._rater = rater
        self._identity = identity
        self._ratings = _read(path)
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def rate(self, prompt: str, candidate: Candidate) -> Rating:
        """See Rater. May be called from many threads."""
        key = content_id(self._identity, prompt, candidate.response)
        if key not in self._ratings:
            rating = self._rater.rate(prompt, candidate)
            line = json.dumps({"key": key, "votes": rating.votes, "prior": rating.prior})
            with self._lock:
                self._ratings[key] = rating
                self._file.write(f"\n{line}\n")  # a line that a crash cut off ends here
        return self._ratings[key]


def _read(path: Path) -> dict[str, Rating]:
    ratings = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
                ratings[entry["key"]] = Rating(tuple(entry["votes"]), tuple(entry["prior"]))
            except (ValueError, KeyError, TypeError):
                continue  # blank, or cut off by a crash: it is asked for again
    return ratings
