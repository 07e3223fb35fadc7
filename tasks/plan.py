"""What a run would do, and why: `headrace plan`.

DVC says which stages have changed. What exactly has, a file of code or a param's value, is found by
comparing with what the stage's newest attempt was asked for.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from components.contract import Json
from components.params import load_params
from tasks import outcome
from tasks.dag import read_dag
from tasks.dvc import changed_stages
from tasks.key import file_digests
from tasks.run_dir import flatten, latest_run, resolved_params

Verdict = Literal["run", "follow", "cached"]


@dataclass(frozen=True)
class Planned:
    stage: str
    verdict: Verdict
    """`follow`: nothing of its own has changed; it runs if what a stage before it puts out does."""
    reasons: tuple[str, ...]
    last_s: float | None
    """Seconds that its newest finished attempt took; None if there is none."""


def plan(root: Path) -> list[Planned]:
    """One entry a stage, in the DAG's order. Raises UserError for wrong params, as a run would."""
    params = load_params(root / "params.yaml").model_dump(mode="json")
    dag, changed = read_dag(root), changed_stages(root)
    planned: list[Planned] = []
    waiting: set[str] = set()
    for stage, spec in dag.items():
        run = latest_run(root, stage)
        ended = outcome.read(run) if run else None
        before = [parent for parent in spec.inputs if parent in waiting]
        verdict: Verdict = "cached"
        reasons: list[str] = []
        if stage in changed:
            now = {
                "params": resolved_params(params, spec),
                "code": file_digests(root, spec.code),
            }
            verdict = "run"
            reasons = differences(_asked(run), now) or [_plain(text) for text in changed[stage]]
        elif before:
            verdict, reasons = "follow", [f"after {', '.join(before)}"]
        if verdict != "cached":
            waiting.add(stage)
        took = ended.elapsed_s if ended and ended.ok else None
        planned.append(Planned(stage, verdict, tuple(reasons), took))
    return planned


def differences(asked: Mapping[str, Json] | None, now: Mapping[str, Json]) -> list[str]:
    """What of `params` (nested) and `code` (path to digest) differs, one line each; sorted."""
    if asked is None:
        return []
    before, after = flatten(asked["params"]), flatten(now["params"])
    lines = [
        f"param {key}: {_short(before.get(key))} -> {_short(after.get(key))}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]
    old, new = asked["code"], now["code"]
    for path in sorted(old.keys() | new.keys()):
        if old.get(path) != new.get(path):
            what = "new" if path not in old else "removed" if path not in new else "changed"
            lines.append(f"code {path}: {what}")
    return lines


def unwatched_sources(root: Path) -> list[str]:
    """One line for each source of local files that DVC does not watch: a change there starts no run."""
    params = load_params(root / "params.yaml").model_dump(mode="json")
    spec = read_dag(root).get("ingest")
    lines = []
    for source in params.get("ingest", {}).get("sources", []):
        place = source["location"]
        if source["kind"] != "files" or "://" in place or spec is None:
            continue
        if not any(Path(place).is_relative_to(dep) for dep in spec.deps):
            lines.append(
                f"source {source['name']}: DVC does not see when {place} changes; "
                f"add its folder to the deps of ingest in dvc.yaml"
            )
    return lines


def table(planned: Sequence[Planned], num_reasons: int = 4) -> str:
    """For a terminal: stage, what happens to it, how long it took last, and why."""
    lines = []
    for item in planned:
        took = f"{item.last_s:,.0f} s" if item.last_s is not None else "-"
        shown = list(item.reasons[:num_reasons])
        if len(item.reasons) > num_reasons:
            shown.append(f"and {len(item.reasons) - num_reasons} more: headrace plan --json")
        first, *rest = shown or [""]
        lines.append(f"{item.stage:>14}  {item.verdict:<7} {took:>8}  {first}".rstrip())
        lines += [" " * 35 + reason for reason in rest]
    known = [item.last_s or 0.0 for item in planned if item.verdict != "cached"]
    lines.append(f"{len(known)} of {len(planned)} stages to run; they took {sum(known):,.0f} s")
    return "\n".join(lines)


def _asked(run: Path | None) -> dict[str, Json] | None:
    try:
        request: dict[str, Json] = (
            json.loads((run / "request.json").read_text("utf-8")) if run else {}
        )
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return request if "code" in request else None


def _plain(reason: str) -> str:
    return reason.removeprefix("changed ").removeprefix("deps: ")


def _short(value: Json) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."
