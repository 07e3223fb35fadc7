"""`headrace reproduce`: compute a registered version again from what it recorded, and compare."""

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.contract import STAGES, Json
from components.errors import DataError, StageError, UserError
from components.section import read_yaml
from tasks import dvc, outcome
from tasks.config import home_root
from tasks.dag import ARTIFACTS, read_dag, select
from tasks.locks import held, if_free, this_process
from tasks.mlflow_faults import download_faults_typed, mlflow_faults_typed
from tasks.promotion import version_of
from tasks.registry import MODEL_NAME, REPRODUCE
from tasks.run_dir import flatten
from tasks.workspace import run_dvc, run_git, share_settings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

PLACE = Path(".headrace", "reproductions")
FIGURES = Path("reports", "evaluate.json")
NOTE = Path("runs", "reproduction.json")
"""In a clone: what is to be computed there yet; there is none once all is compared."""


@dataclass(frozen=True)
class Reproduction:
    version: str
    folder: Path
    rows: list[tuple[str, str, str, str]]
    """Stage, recorded digest, digest now, and `equal`, `different` or `taken`."""
    worst: tuple[str, float] | None
    """The figure of the evaluation that moved most, and by how many standard errors."""
    max_se: float

    @property
    def first_difference(self) -> str:
        return next((row[0] for row in self.rows if row[3] == "different"), "")

    @property
    def verdict(self) -> str:
        if not self.first_difference:
            return "bit-equal"
        name, moved_se = self.worst or ("no figure was evaluated", math.inf)
        if moved_se <= self.max_se:
            return (
                f"within {self.max_se:g} standard errors: different first in "
                f"{self.first_difference}, {name} moved most, by {moved_se:.2f}"
            )
        return f"different, first in {self.first_difference}: {name} moved by {moved_se:.2f} se"

    @property
    def text(self) -> str:
        lines = [
            f"{stage:>14}  {was:<10.10} {now:<10.10}  {how}" for stage, was, now, how in self.rows
        ]
        return "\n".join([*lines, f"{MODEL_NAME} version {self.version}: {self.verdict}"])


@mlflow_faults_typed()
def reproduce(
    root: Path, uri: str, first: str, max_se: float, say: Callable[[str], object] = print
) -> Reproduction:
    """Clone the version's commit, take the data before stage `first` by digest, compute the rest.

    Nothing is taken from DVC's run cache: every stage from `first` on is executed. One that was
    stopped is gone on with; of two at once the second waits, and then computes all of it again.
    Raises UserError if the version does not say where it came from, DataError if its data or code is
    not to be had, InfraError if MLflow or its files are away.
    """
    from mlflow import MlflowClient

    client = MlflowClient()
    version = version_of(client, uri)
    home = home_root(root)
    folder = home / PLACE / f"{MODEL_NAME}-{version.version}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with held(_lock(folder), this_process(folder), lambda other: say(f"waiting for {other}")):
        _remove_ended(folder)
        note = outcome.read_json(folder / NOTE) or {}
        if note.get("of") == [version.run_id, first] and "figures" in note:
            say(f"going on in {folder}")
        else:
            note = _begin(client, version, home, folder, first, say)
        for stage in list(note["todo"]):
            say(f"computing {stage}")
            dvc.reproduce(folder, stage, "reproduce", force=True, say=say)
            note["todo"].remove(stage)
            outcome.write_json(folder / NOTE, note)
        was, now = note["recorded"], _digests(folder)
        order = select(read_dag(folder), ())
        taken = order[: order.index(first)]
        rows = [
            (
                stage,
                was[stage],
                now[stage],
                "taken" if stage in taken else "equal" if was[stage] == now[stage] else "different",
            )
            for stage in order
        ]
        worst = largest_move(note["figures"], _figures(folder / FIGURES))
        (folder / NOTE).unlink()  # asked again, all is computed again
    return Reproduction(str(version.version), folder, rows, worst, max_se)


def _begin(
    client: "MlflowClient",
    version: "ModelVersion",
    home: Path,
    folder: Path,
    first: str,
    say: Callable[[str], object],
) -> dict[str, Json]:
    """Make the clone, ready to be computed, and the note in it of what is to be done."""
    if folder.exists():
        shutil.rmtree(folder)
    commit = version.tags.get("headrace.git_commit", "").removesuffix("-dirty")
    say(f"cloning commit {commit[:12]} into {folder}")
    _clone(home, folder, commit)
    figures = _fetch_files(client, str(version.run_id), folder)
    recorded = _digests(folder)
    _require_same_code(folder)
    order = select(read_dag(folder), ())
    share_settings(home, folder)
    _take(folder, order[: order.index(first)])
    note = {
        "of": [version.run_id, first],
        "recorded": recorded,
        "figures": figures,
        "todo": order[order.index(first) :],
    }
    (folder / NOTE).parent.mkdir(exist_ok=True)
    outcome.write_json(folder / NOTE, note)
    return note


def _remove_ended(folder: Path) -> None:
    """Remove the clones beside `folder` whose work is done: each holds a copy of all artifacts."""
    for other in folder.parent.iterdir():
        if other.is_dir() and other != folder and not (other / NOTE).exists():
            with if_free(_lock(other)) as is_free:
                if is_free:
                    shutil.rmtree(other)


def _lock(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def largest_move(before: Mapping[str, Json], after: Mapping[str, Json]) -> tuple[str, float] | None:
    """The figure with an error that moved most, in standard errors of the one before; None if none.

    One that is no number now, or was none, has moved beyond all bounds.
    """
    moves = []
    for name, value in before.items():
        first, dot, rest = name.partition(".")
        error = before.get(f"{first}_se{dot}{rest}")
        if isinstance(value, int | float) and isinstance(error, int | float):
            move = abs(after.get(name, math.nan) - value)
            moved_se = move / error if error else math.inf if move else 0.0
            moves.append((math.inf if math.isnan(moved_se) else moved_se, name))
    return (max(moves)[1], max(moves)[0]) if moves else None


def _clone(home: Path, folder: Path, commit: str) -> None:
    if not commit or commit == "unknown":
        raise UserError("the version does not say which commit it came from", "register it in git")
    run_git(home, "clone", "--quiet", "--no-checkout", str(home), str(folder))
    # A DVC experiment's commit is on no branch.
    run_git(folder, "fetch", "--quiet", "origin", "+refs/exps/*:refs/exps/*")
    try:
        run_git(folder, "checkout", "--quiet", "--detach", commit)
    except StageError as error:
        raise DataError(
            f"commit {commit[:12]} is not in {home}", "fetch it from where it was made"
        ) from error


def _fetch_files(client: "MlflowClient", run_id: str, folder: Path) -> dict[str, Json]:
    """Put what the version was computed from into the clone; return the figures it was given.

    All that MLflow is asked for is asked before the hours of work.
    """
    wanted = {f"reproduce/{name}": folder / name for name in REPRODUCE}
    with (
        download_faults_typed(f"what MLflow's run {run_id} keeps"),
        tempfile.TemporaryDirectory() as place,
    ):
        parts = ("reproduce", FIGURES.parent.name)
        kept = {file.path for part in parts for file in client.list_artifacts(run_id, part)}
        for name in (*wanted, str(FIGURES)):
            if name not in kept:
                raise UserError(
                    f"the version keeps no {name}", "it was registered before versions kept it"
                )
        for name, target in wanted.items():
            shutil.copy(client.download_artifacts(run_id, name, place), target)
        return _figures(Path(client.download_artifacts(run_id, str(FIGURES), place)))


def _require_same_code(folder: Path) -> None:
    """Raise DataError if the commit's code is not what the version was computed with."""
    changed = {
        reason
        for reasons in dvc.changed_stages(folder).values()
        for reason in reasons
        if reason.startswith("changed deps: components/") and not reason.endswith("deleted")
    }
    if changed:
        raise DataError(
            f"the version was made from uncommitted code: {'; '.join(sorted(changed))}",
            "commit before you register",
        )


def _take(folder: Path, stages: list[str]) -> None:
    paths = [f"{ARTIFACTS}/{stage}" for stage in stages]
    if paths:
        run_dvc(folder, "checkout", "--quiet", *paths, check=False)
        missing = [path for path in paths if not (folder / path).exists()]
        if missing:
            try:
                run_dvc(folder, "pull", "--quiet", *missing)
            except StageError as error:
                raise DataError(
                    f"{', '.join(missing)} as the version had them: {error.message}",
                    "`dvc push` them where they are; or leave out --from, and all is computed",
                ) from error


def _digests(folder: Path) -> dict[str, str]:
    stages = read_yaml(folder / "dvc.lock")["stages"]
    return {
        stage: next(
            out["md5"] for out in stages[stage]["outs"] if out["path"] == f"{ARTIFACTS}/{stage}"
        )
        for stage in stages
        if stage in STAGES
    }


def _figures(path: Path) -> dict[str, Json]:
    return flatten(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
