"""Promotion through the gates, going back, and the table of both."""

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from components.addresses import with_secrets
from components.contract import STAGES
from components.errors import DataError, StageError, UserError
from components.gates.promotion import (
    Items,
    Measured,
    Verdict,
    judge_answers,
    judge_contracts,
    judge_figures,
    load_gates,
    table,
)
from tasks import journal, outcome
from tasks.champion import ALIAS, move, settle
from tasks.journal import Entry
from tasks.mlflow_faults import NOT_THERE, absence_typed, download_faults_typed, mlflow_faults_typed
from tasks.registry import ITEMS, MODEL_NAME, generate
from tasks.workspace import run_git

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

GATES = "gates.yaml"
METRIC = "metric."
"""What the tags of a version that hold figures begin with."""
NAMES_NOTHING = (NOT_THERE, "INVALID_PARAMETER_VALUE")
"""MLflow's codes for a number or a name that is none, or names nothing."""


@dataclass(frozen=True)
class Promotion:
    version: str
    champion: str
    """Before; empty if there was none."""
    rows: list[Verdict]
    moved: bool

    @property
    def text(self) -> str:
        said = "is champion now" if self.moved else "is not promoted"
        return f"`{MODEL_NAME}` version {self.version} {said}.\n\n{table(self.rows)}"


@mlflow_faults_typed()
def promote(root: Path, version: str = "", override: str = "", who: str = "") -> Promotion:
    """Take `version` (the newest if empty) through gates.yaml; move the alias if all hold.

    With a reason in `override` it is moved although some do not hold. Raises UserError if there is
    no such version, or if the champion was changed meanwhile; InfraError, without a verdict, if
    MLflow or its files are away.
    """
    from mlflow import MlflowClient

    override = _reason(override)
    client = MlflowClient()
    gates, review = load_gates(root / GATES), _reviewed(root)
    entries = settle(client)
    candidate = _version(client, version)
    before = (journal.champions(entries) or [""])[-1]
    champion = _version(client, before) if before else None
    if champion is not None and champion.version == candidate.version:
        raise UserError(f"version {candidate.version} is champion already", "name another version")
    rows = judge_figures(
        gates, _measured(client, candidate), _measured(client, champion) if champion else None
    )
    rows.append(judge_contracts(gates, _failed_expectations(client, candidate)))
    rows.append(_ask(candidate, gates.prompts))
    rows.append(review)
    passed = all(row.passed for row in rows)
    moved = passed or bool(override)
    result = Promotion(str(candidate.version), before, rows, moved)
    for name, value in (("verdict", table(rows)), ("passed", str(passed).lower())):
        client.set_model_version_tag(MODEL_NAME, candidate.version, f"gates.{name}", value)
    if moved:
        why = "all gates passed" if passed else f"override: {override}"
        move(client, entries, "promote", result.champion, result.version, who, why)
    return result


@mlflow_faults_typed()
def rollback(why: str, who: str = "") -> Entry:
    """Make the champion before the present one champion again; of those that are still there.

    The record says why, and which were passed over because somebody deleted them. Raises UserError
    if there is none, or no reason.
    """
    from mlflow import MlflowClient

    why = _reason(why)
    if not why:
        raise UserError("a rollback without a reason", "say why: it goes on the record")
    client = MlflowClient()
    entries = settle(client)
    *earlier, present = journal.champions(entries) or [""]
    deleted: list[str] = []
    for version in reversed(earlier):
        if version in ("", present, *deleted):
            continue
        if _exists(client, version):
            return move(
                client, entries, "rollback", present, version, who, why + _passed_over(deleted)
            )
        deleted.append(version)
    raise UserError(
        f"there is no champion to go back to{_passed_over(deleted)}",
        "`headrace models` shows the record",
    )


def _reason(text: str) -> str:
    """Without blanks around it. Raises UserError for one with a password: the record is for ever."""
    if list(with_secrets(text)):
        raise UserError("a reason with a password or a key in an address", "leave it out")
    return text.strip()


def _passed_over(deleted: Sequence[str]) -> str:
    return f" (deleted meanwhile: version {', '.join(deleted)})" if deleted else ""


def _exists(client: "MlflowClient", version: str) -> bool:
    try:
        _version(client, version)
    except UserError:
        return False
    return True


def _version(client: "MlflowClient", version: str) -> "ModelVersion":
    """The version of that number; the newest if empty. Raises UserError if there is none."""
    if not version:
        found = client.search_model_versions(
            f"name = '{MODEL_NAME}'", order_by=["version_number DESC"], max_results=1
        )
        if not found:
            raise UserError(f"{MODEL_NAME} has no version", "`headrace run` makes one")
        return found[0]
    nothing = f"{MODEL_NAME} has no version {version}"
    with absence_typed(nothing, "`headrace models` lists them", NAMES_NOTHING):
        return client.get_model_version(MODEL_NAME, version)


def version_of(client: "MlflowClient", uri: str) -> "ModelVersion":
    """The version that `models:/headrace/3` or `models:/headrace@champion` names."""
    name, at, alias = uri.removeprefix("models:/").partition("@")
    if not at:
        return _version(client, uri.rpartition("/")[2])
    with absence_typed(
        f"{uri}: no such alias", "`headrace models` lists what there is", NAMES_NOTHING
    ):
        return client.get_model_version_by_alias(name, alias)


def _figures(version: "ModelVersion") -> dict[str, float]:
    """Those that its tags hold; a tag that is no number, as a person may make one, is none."""
    figures = {}
    for name, value in version.tags.items():
        if name.startswith(METRIC):
            with suppress(ValueError):
                figures[name.removeprefix(METRIC)] = float(value)
    return figures


def _measured(client: "MlflowClient", version: "ModelVersion") -> Measured:
    """Figures and items, which were kept with the version; no items where it has none.

    Raises InfraError if their store is away.
    """
    with (
        download_faults_typed(f"the test items of {MODEL_NAME} version {version.version}"),
        tempfile.TemporaryDirectory() as folder,
    ):
        items: Items = {}
        if _keeps(client, version, ITEMS.parent.as_posix()):
            path = client.download_artifacts(str(version.run_id), ITEMS.parent.as_posix(), folder)
            items = outcome.read_json(Path(path) / ITEMS.name) or {}
    return Measured(_figures(version), items)


def _failed_expectations(client: "MlflowClient", version: "ModelVersion") -> dict[str, int | None]:
    """From the stages' reports, which were kept with the version; None where there is none.

    Raises InfraError if their store is away.
    """
    failed: dict[str, int | None] = dict.fromkeys(STAGES)
    with tempfile.TemporaryDirectory() as folder:
        with download_faults_typed(f"the reports of {MODEL_NAME} version {version.version}"):
            if not _keeps(client, version, "reports"):
                return failed
            path = Path(client.download_artifacts(str(version.run_id), "reports", folder))
        for stage in STAGES:
            report = outcome.read_json(path / f"{stage}.json") or {}
            failed[stage] = report.get("contract", {}).get("num_failed")
    return failed


def _keeps(client: "MlflowClient", version: "ModelVersion", folder: str) -> bool:
    """Whether the run that registered the version is there, with files in `folder`."""
    from mlflow.exceptions import MlflowException

    try:
        return bool(client.list_artifacts(str(version.run_id), folder))
    except MlflowException as error:
        if error.error_code not in NAMES_NOTHING:
            raise
        return False


def _reviewed(root: Path) -> Verdict:
    """Whether the gates are as git has them: those that nobody has reviewed decide nothing."""
    said, is_reviewed = "not in git", False
    with suppress(StageError, OSError):
        commit = run_git(root, "rev-parse", "--short=12", "HEAD").strip()
        if run_git(root, "ls-files", "--", GATES):
            is_reviewed = not run_git(root, "diff", "--name-only", "HEAD", "--", GATES)
            said = f"commit {commit}" if is_reviewed else f"changed since commit {commit}"
    return Verdict(GATES, said, "", "as committed", is_reviewed)


def _ask(version: "ModelVersion", prompts: list[str]) -> Verdict:
    try:
        answers = generate(f"models:/{MODEL_NAME}/{version.version}", prompts, max_new_tokens=32)
    except DataError as error:
        return Verdict("answers from the registry", error.message, "", "every prompt", False)
    return judge_answers(prompts, answers)


@mlflow_faults_typed()
def models(root: Path) -> str:
    """The versions, the newest first, and the record of promotions, as a table for a terminal.

    Its figures are those that gates.yaml compares.
    """
    from mlflow import MlflowClient

    client, compared = MlflowClient(), load_gates(root / GATES).against_champion
    entries = settle(client)
    present = (journal.champions(entries) or [""])[-1]
    found = client.search_model_versions(
        f"name = '{MODEL_NAME}'", order_by=["version_number DESC"], max_results=1000
    )
    lines = [f"{'version':>8}  {'made at':<16}  {'commit':<8}  {'gates':<8}  figures"]
    for item in found:
        made_at = datetime.fromtimestamp(item.creation_timestamp / 1000).strftime("%Y-%m-%d %H:%M")
        commit = item.tags.get("headrace.git_commit", "")[:8]
        gates = {"true": "passed", "false": "failed"}.get(item.tags.get("gates.passed", ""), "-")
        figures = _figures(item)
        shown = [f"{name} {figures[name]:.3f}" for name in compared if name in figures]
        mark = f"  <- {ALIAS}" if str(item.version) == present else ""
        lines.append(
            f"{item.version:>8}  {made_at}  {commit:<8}  {gates:<8}  {', '.join(shown)}{mark}"
        )
    if entries:
        lines.append("")
    for entry in entries:
        move = f"{entry.before or 'none'} -> {entry.after or 'none'}"
        lines.append(f"{entry.at}  {entry.action:<8}  {move:<12}  {entry.who}: {entry.why}")
    return "\n".join(lines)
