"""A pretrain that waits where a test wants it, so that no test races its speed.

The project's copy of the loop gets two waits. Neither changes what a step computes, and without a
file of its name in `runs/` neither waits: a project trained undisturbed runs the same code.
"""

import json
from pathlib import Path

from tests.integration.tasks.processes import wait_for

HELD_AT = 6
"""Steps done; checkpoints are written every four."""
WAITS = {
    "components/train/loop.py": (
        "            if stop_requested(update):\n",
        f"""\
            while step == {HELD_AT} and Path("runs/hold").exists() and not stop.is_requested():
                time.sleep(0.05)
""",
    ),
    "components/train/checkpoint.py": (
        "    (part / STATE).write_text(",
        """\
    import time
    from components.train import stop
    while stop.is_requested() and Path("runs/hold-last-checkpoint").exists():
        time.sleep(0.05)
""",
    ),
}
"""By file: the line before which to wait, and how."""


def put_waits_in(root: Path) -> None:
    for name, (line, wait) in WAITS.items():
        text = (root / name).read_text()
        assert text.count(line) == 1, name
        (root / name).write_text(text.replace(line, wait + line))


def hold(root: Path, what: str = "hold") -> None:
    """Have it wait after HELD_AT steps until `let_go`, or until it is asked to stop.

    `hold-last-checkpoint`: have it wait while it writes the checkpoint of such a stop.
    """
    (root / "runs" / what).touch()


def let_go(root: Path, what: str = "hold") -> None:
    (root / "runs" / what).unlink()


def wait_until_held(root: Path) -> None:
    wait_for(lambda: steps_done(root) == HELD_AT, 240)


def steps_done(root: Path) -> int:
    """The newest step that the pretrain has told of."""
    newest = 0
    for path in (root / "runs" / "pretrain").glob("*/metrics.jsonl"):
        for line in path.read_text().splitlines():
            newest = max(newest, json.loads(line).get("step", 0))
    return newest


def checkpoints(root: Path) -> list[str]:
    """Their folders' names: `step-*` are whole, `.part-*` are not."""
    # Without a look into them: one is renamed when it is whole, and old ones are removed.
    return sorted(path.name for path in (root / "runs" / "pretrain").glob("*/work/checkpoints/*"))
