"""A matrix product whose answer is known without a matrix product, exact in every type.

    A = [P, D - P]        [M, 2H]     P: integers of -15..15;  D = S - T, two selections of rows
    B = [Q ; Q]           [2H, N]     Q: integers of -15..15
    A B = P Q + (D - P) Q = D Q       element (i, j) is Q[s_i, j] - Q[t_i, j]

Why it is exact: every factor is an integer of at most 16, which bf16's 8 bits of significand hold. A
product is at most 16 * 15, so any sum of some of the 2H products, in whatever order and grouping,
is an integer of at most 2H * 240 < 2^24, which fp32 holds: accumulation in fp32 rounds nothing.
And the answer is an integer of at most 30, so the final rounding to bf16, too, changes nothing. The
factors are dense and have full significands, so the multipliers work as hard as in training; a
single flipped bit on the way makes some element differ.

It needs accumulation in fp32: cuBLAS must not reduce parts of a product in bf16 (`burn.py` sees to
that). The digest is of the answer as int8, row by row, so it is the same for every device and type.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.preflight.readings import Matmul

Int8 = NDArray[np.int8]

LARGEST = 15
"""Of an entry of P and Q."""
PRIME = 99991
MAX_INNER = 2**24 // ((LARGEST + 1) * LARGEST)
"""Of 2H, for exact sums in fp32."""
HOST_SIZE = 1024


@dataclass(frozen=True)
class Problem:
    """Two factors and their product."""

    a: Int8
    """[M, 2H], entries of -16..16."""
    b: Int8
    """[2H, N], entries of -15..15."""
    answer: Int8
    """[M, N], entries of -30..30."""

    @property
    def flop(self) -> int:
        """Of one product."""
        rows, inner = self.a.shape
        return int(2 * rows * inner * self.b.shape[1])


def square_problem(size: int) -> Problem:
    """All of `size` x `size`; even, at most MAX_INNER. The same numbers at all times everywhere."""
    half = size // 2
    p, q = _entries(size, half, 1), _entries(half, size, 2)
    plus, minus = _selection(size, half, 3), _selection(size, half, 4)
    rest = -p  # stays within -16..16: each row gains 1 in one place and loses 1 in another
    rows = np.arange(size)
    np.add.at(rest, (rows, plus), 1)
    np.subtract.at(rest, (rows, minus), 1)
    return Problem(np.hstack([p, rest]), np.vstack([q, q]), q[plus] - q[minus])


@cache
def _sequence(length: int, salt: int) -> Int8:
    """Entries without a visible pattern: cubes modulo a prime, which repeat only after it."""
    number = np.arange(salt, length + salt, dtype=np.int64) % PRIME
    return ((number**3 * 7 + 5 * salt) % PRIME % (2 * LARGEST + 1) - LARGEST).astype(np.int8)


def _entries(rows: int, columns: int, salt: int) -> Int8:
    """Each row is a stretch of one sequence, from another place."""
    starts = (np.arange(rows, dtype=np.int64) * 4099 + salt) % PRIME
    sequence = _sequence(PRIME + columns, salt)
    return np.lib.stride_tricks.sliding_window_view(sequence, columns)[starts]


def _selection(rows: int, choices: int, salt: int) -> NDArray[np.int64]:
    return (np.arange(rows, dtype=np.int64) * 7919 + 101 * salt) % choices


def digest(product: NDArray[Any]) -> str:
    """SHA-256 of a product of whatever type, as int8. What does not fit int8 wraps: it is wrong."""
    return hashlib.sha256(np.ascontiguousarray(product.astype(np.int8)).data).hexdigest()


def host_matmul(
    dtype: str, seconds: float, size: int = HOST_SIZE, clock: Callable[[], float] = time.monotonic
) -> Matmul:
    """The product on the CPU in `float32` or `float64`, for about `seconds`, each time compared."""
    problem = square_problem(size)
    a, b, answer = (part.astype(dtype) for part in (problem.a, problem.b, problem.answer))
    product = np.empty_like(answer)
    rounds = wrong = 0
    multiplying_s = 0.0
    begin = clock()
    while not rounds or clock() - begin < seconds:
        start = clock()
        np.matmul(a, b, out=product)
        multiplying_s += clock() - start
        wrong += int(np.count_nonzero(product != answer))
        rounds += 1
    tflops = rounds * problem.flop / max(multiplying_s, 1e-9) / 1e12
    return Matmul(None, dtype, rounds, wrong, digest(product), digest(problem.answer), tflops)
