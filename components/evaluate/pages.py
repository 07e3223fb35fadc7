"""The results for people: one table, one picture, some answers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from components.evaluate.answers import Answer
from components.evaluate.figures import Figures
from components.evaluate.subjects import SUBJECTS

MODELS = [subject.name for subject in SUBJECTS]


class Row(NamedTuple):
    figure: str
    label: str
    better: str


ROWS = (
    Row("bits_per_byte", "bits per byte", "lower"),
    Row("task_accuracy", "task accuracy", "higher"),
    Row("task_accuracy_normalised", "... by log-likelihood per character", "higher"),
    Row("task_accuracy_raw", "... by log-likelihood", "higher"),
    Row("preference_accuracy", "crowd's pairs: chosen answer likelier", "higher"),
    Row("implicit_reward_accuracy", "crowd's pairs: chosen answer gained more over sft", "higher"),
    Row("judged_reward", "reward of greedy answers (reward model)", "higher"),
    Row("judged_reward_baseline", "... (Bradley-Terry)", "higher"),
    Row("answer_ended", "greedy answers that ended", "higher"),
)


def cell(figures: Figures, name: str, model: str) -> str:
    """`1.234 ± 0.005`, or a dash."""
    value = figures.get(name, {}).get(model)
    if value is None:
        return "–"
    error = figures.get(f"{name}_se", {}).get(model)
    return f"{value:.4f}" + (f" ± {error:.4f}" if error is not None else "")


def signed_cell(figures: Figures, name: str, model: str) -> str:
    text = cell(figures, name, model)
    return text if text.startswith(("–", "-")) else f"+{text}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines] + [""]


def write_results(figures: Figures, notes: Sequence[str], path: Path) -> None:
    """results.md."""
    lines = ["# Results", "", "± is one standard error.", ""]
    lines += table(
        ["", *MODELS, "better"],
        [
            [row.label, *(cell(figures, row.figure, model) for model in MODELS), row.better]
            for row in ROWS
            if row.figure in figures
        ],
    )
    lines += ["## What each model changed against the one before it, pair by pair", ""]
    changed = MODELS[1:]
    lines += table(
        ["", *changed],
        [
            [row.label, *(signed_cell(figures, f"{row.figure}_change", m) for m in changed)]
            for row in ROWS
            if f"{row.figure}_change" in figures
        ],
    )
    lines += ["## Other ways to code the same documents", ""]
    others = [name for name in figures["bits_per_byte"] if name not in MODELS]
    lines += table(
        ["", "bits per byte"],
        [[name, cell(figures, "bits_per_byte", name)] for name in others],
    )
    streams = [name for name in others if name not in figures["bits_per_byte_se"]]
    if streams:
        lines += [
            f"{' and '.join(streams)} have no standard error: each reads all documents in one stream, "
            "so what one costs depends on those before it, and there are no independent values to "
            "take an error from.",
            "",
        ]
    lines += ["## The reward model on held-out rated answers", ""]
    lines += table(
        ["", "pairs ranked as the crowd does"],
        [[name, cell(figures, "reward_accuracy", name)] for name in figures["reward_accuracy"]],
    )
    lines += ["## How this was measured", "", *(f"- {note}" for note in notes), ""]
    path.write_text("\n".join(lines), encoding="utf-8")


def write_samples(
    questions: Sequence[str], answers: Mapping[str, Sequence[Answer]], path: Path
) -> None:
    """samples.md: each question with every model's greedy answer."""
    lines = ["# Greedy answers to held-out questions", ""]
    for place, question in enumerate(questions):
        lines += [f"## {_one_line(question)}", ""]
        for name, given in answers.items():
            answer = given[place]
            cut = "" if answer.ended else " *(cut off)*"
            lines += [f"**{name}**: {_one_line(answer.text)}{cut}", ""]
    path.write_text("\n".join(lines), encoding="utf-8")


def _one_line(text: str) -> str:
    """Model output stays text: no line of it becomes markup."""
    escaped = text.replace("\\", "\\\\")
    for sign in "`*_<>#|[]":
        escaped = escaped.replace(sign, f"\\{sign}")
    return " ".join(escaped.split()) or "(nothing)"


def draw_results(figures: Figures, chance: float, path: Path) -> None:
    """results.png: four panels, one bar for each model, whiskers of one standard error."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    panels = (
        ("bits_per_byte", "Bits per byte (lower is better)"),
        ("task_accuracy", "Multiple-choice accuracy"),
        ("preference_accuracy", "Crowd's pairs ranked right"),
        ("judged_reward", "Reward of greedy answers"),
    )
    colours = dict(zip(MODELS, ("#8c959f", "#54aeff", "#0969da", "#8250df"), strict=True))
    figure, axes = plt.subplots(2, 2, figsize=(11, 7.5), layout="constrained")
    for axis, (name, title) in zip(axes.flat, panels, strict=True):
        values = dict(figures[name])
        if name == "preference_accuracy":
            values |= figures["reward_accuracy"]
        errors = figures.get(f"{name}_se", {}) | (
            figures["reward_accuracy_se"] if name == "preference_accuracy" else {}
        )
        names = list(values)
        bars = axis.bar(
            [label.replace("_", "\n") for label in names],
            list(values.values()),
            yerr=[errors.get(label, 0.0) for label in names],
            color=[colours.get(label, "#d0d7de") for label in names],
            capsize=3,
        )
        axis.bar_label(bars, fmt="%.3f", padding=3, fontsize=8)
        axis.set_title(title)
        axis.margins(y=0.12)
        axis.spines[["top", "right"]].set_visible(False)
        if name == "task_accuracy":
            axis.axhline(chance, color="#cf222e", linewidth=1, linestyle="--")
            axis.text(
                1,
                chance,
                "chance",
                color="#cf222e",
                va="bottom",
                ha="right",
                transform=axis.get_yaxis_transform(),
            )
        if name == "preference_accuracy":
            axis.axhline(0.5, color="#cf222e", linewidth=1, linestyle="--")
            axis.tick_params(axis="x", labelsize=8)
        if name == "judged_reward":
            axis.axhline(0, color="#57606a", linewidth=1)
        if name == "bits_per_byte":
            axis.tick_params(axis="x", labelsize=8)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
