"""What a run would do, and why: `headrace plan`.

DVC says which stages have changed. Which param's value has is found by comparing with dvc.lock, and
which file of code by comparing with what the attempt was asked for whose output DVC has recorded.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from components.contract import Json
from components.params import load_params
from components.section import read_yaml
from tasks import outcome
from tasks.dag import StageSpec, read_dag
from tasks.dvc import changed_stages, restorable_stages
from tasks.key import file_digests
from tasks.outcome import Outcome
from tasks.run_dir import RunDir, flatten, lock_entry, read_request, resolved_params

CHANGED_DEP = "changed deps: "
Verdict = Literal["run", "restore", "follow", "cached"]


@dataclass(frozen=True)
class Planned:
    stage: str
    verdict: Verdict
    """`restore`: DVC takes its output from its cache. `follow`: nothing of its own has changed; it runs
    if what a stage before it puts out does."""
    reasons: tuple[str, ...]
    last_s: float | None
    """Seconds that its newest finished attempt took; None if there is none."""


def plan(root: Path) -> list[Planned]:
    """One entry a stage, in the DAG's order. Raises UserError for wrong params, as a run would."""
    load_params(root / "params.yaml")
    params = read_yaml(root / "params.yaml")
    dag, changed = read_dag(root), changed_stages(root)
    ready = [
        stage
        for stage in changed
        if stage in dag and changed.keys().isdisjoint(_ancestors(dag, stage))
    ]
    restored = restorable_stages(root, ready) if ready else set()
    planned: list[Planned] = []
    waiting: set[str] = set()
    for stage, spec in dag.items():
        finished = _finished(root, stage)
        before = [parent for parent in spec.inputs if parent in waiting]
        verdict: Verdict = "cached"
        why: list[str] = []
        if stage in changed:
            verdict = "restore" if stage in restored else "run"
            why = reasons(root, spec, params, changed[stage], finished)
        elif before:
            verdict, why = "follow", [f"after {', '.join(before)}"]
        if verdict != "cached":
            waiting.add(stage)
        took = finished[0][1].elapsed_s if finished else None
        planned.append(Planned(stage, verdict, tuple(why), took))
    return planned


def _ancestors(dag: Mapping[str, StageSpec], stage: str) -> set[str]:
    """All that it depends on, directly or not."""
    inputs = dag[stage].inputs
    return {*inputs}.union(*(_ancestors(dag, name) for name in inputs))


def reasons(
    root: Path,
    spec: StageSpec,
    params: Mapping[str, Json],
    told: Sequence[str],
    finished: Sequence[tuple[Path, Outcome]],
) -> list[str]:
    """Why DVC, which has `told` it in its own words, sees the stage as changed, one line each.

    `finished`: its attempts that ended well, of which one or none is what DVC has recorded.
    """
    entry = lock_entry(root, spec.name) or {}
    recorded = entry.get("params", {}).get("params.yaml")
    now = {"params": resolved_params(params, spec), "code": file_digests(root, spec.code)}
    if recorded is None:
        return [_plain(text) for text in told]
    by_dep = {_path(text): text for text in told if text.startswith(CHANGED_DEP)}
    before = {"params": recorded, "code": _code_before(now, spec, by_dep, finished)}
    lines = differences(before, now)
    for path, text in by_dep.items():
        is_told = any(line.startswith("param ") for line in lines)
        if path in spec.code:
            is_told = any(_is_below(line.split()[1].rstrip(":"), path) for line in lines)
        if path not in ("params.yaml", *spec.code) or not is_told:
            lines.append(_plain(text))
    return lines + [_plain(text) for text in told if not text.startswith(CHANGED_DEP)]


def _code_before(
    now: Mapping[str, Json],
    spec: StageSpec,
    changed: Mapping[str, str],
    finished: Sequence[tuple[Path, Outcome]],
) -> dict[str, str]:
    """File to digest of the attempt that DVC has recorded; as it is now if that is not to be told.

    Of those that ended well it is one in which no file lies otherwise but below what DVC calls changed.
    """
    for run, _ in finished:
        code: dict[str, str] = read_request(run).get("code", {})
        other = {
            path for path in code.keys() | now["code"] if code.get(path) != now["code"].get(path)
        }
        deps = {dep for dep in spec.code for path in other if _is_below(path, dep)}
        if code and deps == changed.keys() & {*spec.code}:
            return code
    return dict(now["code"])


def _is_below(path: str, folder: str) -> bool:
    return Path(path).is_relative_to(folder)


def differences(asked: Mapping[str, Json], now: Mapping[str, Json]) -> list[str]:
    """What of `params` (nested) and `code` (path to digest) differs, one line each; sorted."""
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
    known = [item.last_s or 0.0 for item in planned if item.verdict in ("run", "follow")]
    lines.append(f"{len(known)} of {len(planned)} stages to run; they took {sum(known):,.0f} s")
    return "\n".join(lines)


def _finished(root: Path, stage: str) -> list[tuple[Path, Outcome]]:
    """The stage's attempts that ended well, the newest first."""
    return sorted(_ended_well(root, stage), key=lambda item: item[1].started_at, reverse=True)


def _ended_well(root: Path, stage: str) -> Iterator[tuple[Path, Outcome]]:
    for path in RunDir(root, stage, "any").path.parent.glob(f"*/{outcome.NAME}"):
        ended = outcome.read(path.parent)
        if ended is not None and ended.ok:
            yield path.parent, ended


def _path(told: str) -> str:
    """Of a dependency, in what DVC says of it."""
    return told.removeprefix(CHANGED_DEP).partition(" ")[0]


def _plain(reason: str) -> str:
    return reason.removeprefix("changed ").removeprefix("deps: ")


def _short(value: Json) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."
