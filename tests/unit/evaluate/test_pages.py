from pathlib import Path

from components.evaluate.pages import write_results


def test_a_figure_without_a_standard_error_says_why(tmp_path: Path) -> None:
    figures = {
        "bits_per_byte": {"base": 1.25, "xz": 1.75, "zstd": 2.0, "zstd_primed": 0.5},
        "bits_per_byte_se": {"base": 0.01, "zstd_primed": 0.02},
        "reward_accuracy": {"reward_model": 0.7},
    }
    write_results(figures, ["A note."], tmp_path / "results.md")
    lines = (tmp_path / "results.md").read_text().splitlines()
    assert "| zstd_primed | 0.5000 ± 0.0200 |" in lines
    assert "| xz | 1.7500 |" in lines
    (why,) = [line for line in lines if "no standard error" in line]
    assert why.startswith(
        "xz and zstd have no standard error: each reads all documents in one stream"
    )
