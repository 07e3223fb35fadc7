from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from components.ingest.split import choose, choose_fraction, split_of

FRACTIONS = {"train": 0.94, "valid": 0.02, "test": 0.04}


def test_splits_come_in_the_stated_fractions() -> None:
    counts = Counter(split_of(f"document {number}", FRACTIONS) for number in range(20_000))
    # Binomial: four standard deviations of 20,000 draws.
    assert abs(counts["test"] - 800) < 4 * (20_000 * 0.04 * 0.96) ** 0.5
    assert abs(counts["valid"] - 400) < 4 * (20_000 * 0.02 * 0.98) ** 0.5


@given(st.lists(st.text("abc é", min_size=1), min_size=1))
def test_spacing_never_moves_a_document(words: list[str]) -> None:
    assert split_of(" ".join(words), FRACTIONS) == split_of("\n\t ".join(words) + "\n", FRACTIONS)


def test_growing_the_test_share_only_ever_takes_from_the_others() -> None:
    texts = [f"document {number}" for number in range(5_000)]
    larger = {"train": 0.9, "valid": 0.02, "test": 0.08}
    before = {text for text in texts if split_of(text, FRACTIONS) == "test"}
    after = {text for text in texts if split_of(text, larger) == "test"}
    assert before < after


def test_a_share_of_nothing_gets_nothing() -> None:
    everything_to_train = {"train": 1.0, "valid": 0.0, "test": 0.0}
    assert {split_of(str(number), everything_to_train) for number in range(1_000)} == {"train"}


def test_choices_are_even_and_depend_on_every_part() -> None:
    counts = Counter(choose(5, "phrasing", str(number)) for number in range(10_000))
    assert set(counts) == set(range(5))
    assert max(abs(count - 2_000) for count in counts.values()) < 4 * (10_000 * 0.2 * 0.8) ** 0.5
    assert choose(2**53, "a", "bc") != choose(2**53, "ab", "c")
    mean = sum(choose_fraction(str(number)) for number in range(10_000)) / 10_000
    assert abs(mean - 0.5) < 0.012


def test_a_lone_surrogate_has_a_split_too() -> None:
    assert split_of("half \ud800 a pair", FRACTIONS) in FRACTIONS
