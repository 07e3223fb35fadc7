"""The alias `champion`: where it stands, and every move of it on the record."""

import getpass
import os
import socket
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from components.errors import UserError
from tasks import journal
from tasks.journal import Action, Entry
from tasks.mlflow_faults import NOT_THERE, absence_typed
from tasks.registry import MODEL_NAME

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

ALIAS = "champion"


def settle(client: "MlflowClient") -> list[Entry]:
    """All entries, after what the last one says is done and the alias is where they say it is.

    An entry whose mover was killed before the alias moved is carried out now; an alias that somebody
    moved by hand is entered as such.
    """
    entries = journal.read(client)
    model = _model(client)
    if entries and not journal.is_shown(model.tags, len(entries), entries[-1]):
        entries = _carry_out(client)
        model = _model(client)
    present = str(model.aliases.get(ALIAS, ""))
    recorded = (journal.champions(entries) or [""])[-1]
    if present != recorded:
        entry = _entry("by hand", recorded, present, "somebody with access to MLflow", "found so")
        if not journal.append(client, entry, len(entries) + 1):
            return settle(client)
        journal.show(client, MODEL_NAME, len(entries) + 1, entry)
        entries = [*entries, entry]
    return entries


def move(
    client: "MlflowClient",
    entries: Sequence[Entry],
    action: Action,
    before: str,
    after: str,
    who: str,
    why: str,
) -> Entry:
    """Enter the move and make it. Raises UserError if anything was entered after `entries`."""
    entry = _entry(action, before, after, who or _whoever_runs_this(), why)
    position = len(entries) + 1
    # The gates take minutes, in which somebody may have moved the alias by hand.
    if len(settle(client)) > len(entries) or not journal.append(client, entry, position):
        first = journal.read(client)[position - 1]
        raise UserError(
            f"{first.who} was first: {first.action} {first.before or 'none'} -> "
            f"{first.after or 'none'} at {first.at}",
            "look at the new champion, then try again",
        )
    _carry_out(client)
    return entry


def _carry_out(client: "MlflowClient") -> list[Entry]:
    """Set the alias as the last of the entries says; return all of them.

    Whoever stalls before setting it undoes what was entered meanwhile: so the entries are read again
    afterwards, until there are no more than were carried out.
    """
    entries = journal.read(client)
    while True:
        last = entries[-1]
        _point(client, last.after)
        now = journal.read(client)
        if len(now) == len(entries):
            journal.show(client, MODEL_NAME, len(entries), last)
            return entries
        entries = now


def _point(client: "MlflowClient", version: str) -> None:
    """Put the alias on `version`, on none if that is empty or was deleted."""
    from mlflow.exceptions import MlflowException

    if version:
        try:
            client.set_registered_model_alias(MODEL_NAME, ALIAS, version)
            return
        except MlflowException as error:
            if error.error_code != NOT_THERE:
                raise
    client.delete_registered_model_alias(MODEL_NAME, ALIAS)


def _whoever_runs_this() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        name = f"uid {os.getuid()}"
    return f"{name}@{socket.gethostname()}"


def _entry(action: Action, before: str, after: str, who: str, why: str) -> Entry:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return Entry(action, before, after, who, why[: journal.MAX_WHY_CHARS], at, uuid.uuid4().hex)


def _model(client: "MlflowClient") -> "RegisteredModel":
    with absence_typed(f"no model {MODEL_NAME!r} is registered", "`headrace run` makes one"):
        return client.get_registered_model(MODEL_NAME)
