"""Pages about a preference training: two pictures and a table of answers."""

from collections.abc import Sequence
from pathlib import Path

from components.dpo.measure import JudgedAnswers
from components.train.loop import TrainResult


def plot_margins(result: TrainResult, path: Path) -> None:
    """Training loss, and on held-out pairs the implicit rewards, their margin and accuracy."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6.5), layout="constrained")
    loss, rewards, accuracy = figure.subplots(3, 1, sharex=True, height_ratios=[2, 3, 2])
    loss.plot(range(1, len(result.losses) + 1), result.losses, color="#1f4e79", linewidth=0.8)
    loss.set(ylabel="training loss", title="dpo")
    steps = [step for step, _ in result.evaluations]
    for name, colour in (
        ("chosen_reward", "#1a7f37"),
        ("rejected_reward", "#a61b1b"),
        ("reward_margin", "#1f4e79"),
    ):
        values = [figures[f"valid/{name}"] for _, figures in result.evaluations]
        rewards.plot(steps, values, "o-", markersize=4, color=colour, label=name)
    rewards.axhline(0, color="grey", linewidth=0.8)
    rewards.set(ylabel="held-out implicit reward")
    rewards.legend()
    values = [figures["valid/reward_accuracy"] for _, figures in result.evaluations]
    accuracy.plot(steps, values, "o-", markersize=4, color="#4f7942")
    accuracy.set(ylabel="held-out accuracy", xlabel="optimiser step", ylim=(0, 1))
    for axes in (loss, rewards, accuracy):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120, metadata={"Software": None})


def plot_rewards(before: JudgedAnswers, after: JudgedAnswers, path: Path) -> None:
    """The reward model's reward of sampled answers, and their lengths, before and after."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for judged, label, colour in ((before, "sft", "#8c8c8c"), (after, "dpo", "#1f4e79")):
        left.hist(judged.rewards, bins=40, range=(-3, 1), alpha=0.55, color=colour, label=label)
        left.axvline(judged.rewards.mean(), color=colour, linestyle="--")
        right.hist(judged.num_tokens, bins=30, alpha=0.55, color=colour, label=label)
        right.axvline(judged.num_tokens.mean(), color=colour, linestyle="--")
    left.set(xlabel="expected reward (reward model)", ylabel="held-out sampled answers")
    right.set(xlabel="tokens")
    left.legend()
    figure.savefig(path, dpi=120, metadata={"Software": None})


def write_samples(
    prompts: Sequence[str],
    before: JudgedAnswers,
    after: JudgedAnswers,
    notes: Sequence[str],
    num_samples: int,
    path: Path,
) -> None:
    """Notes, then the first prompts with both greedy answers and their rewards, as Markdown."""
    lines = [*notes, "", "| prompt | sft | reward | dpo | reward |", "|---|---|---:|---|---:|"]
    for i, prompt in enumerate(prompts[:num_samples]):
        old, new = before.answers[i].text, after.answers[i].text
        lines.append(
            f"| {_cell(prompt)} | {_cell(old)} | {before.rewards[i]:+.2f} "
            f"| {_cell(new)} | {after.rewards[i]:+.2f} |"
        )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cell(text: str) -> str:
    """On one line, and without what would end a cell or begin HTML."""
    flat = " ".join(text.split())
    for char in "\\|`*_<":
        flat = flat.replace(char, f"\\{char}")
    return flat
