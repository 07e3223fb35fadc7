"""What MLflow and the store of its files raise, as typed errors of one line, without passwords."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from components.errors import InfraError, StageError, UserError
from components.redaction import redacted
from tasks import config

NOT_THERE = "RESOURCE_DOES_NOT_EXIST"
USERS_FAULTS = (
    NOT_THERE, "INVALID_PARAMETER_VALUE", "BAD_REQUEST", "PERMISSION_DENIED",
    "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "ENDPOINT_NOT_FOUND",
)  # fmt: skip
"""MLflow's codes for what no waiting mends."""


@contextmanager
def mlflow_faults_typed() -> Iterator[None]:
    """Raise UserError for what MLflow refuses in the body, InfraError if it is away or fails."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError  # of a database that MLflow itself has not reached

    try:
        yield
    except (MlflowException, SQLAlchemyError) as error:
        place = registry_uri()
        if getattr(error, "error_code", "") in USERS_FAULTS:
            raise UserError(
                f"MLflow at {place} refuses: {first_line(error)}",
                "mend MLFLOW_TRACKING_URI, or your rights there",
            ) from error
        raise InfraError(
            f"MLflow at {place} does not answer: {first_line(error)}",
            "start it (`headrace up` starts one here), or mend MLFLOW_TRACKING_URI; then try again",
        ) from error


@contextmanager
def absence_typed(message: str, hint: str, codes: Collection[str] = (NOT_THERE,)) -> Iterator[None]:
    """Raise UserError for what MLflow says in the body is not there, by these codes of its."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code not in codes:
            raise
        raise UserError(message, hint) from error


@contextmanager
def download_faults_typed(what: str) -> Iterator[None]:
    """Raise UserError for what is refused in the body, InfraError for all else that fails there.

    A file that is not there is the store's: its folder may not be mounted.
    """
    where = f"{what} in {registry_uri()}"
    try:
        yield
    except StageError:
        raise
    except Exception as error:  # every kind of store has a client with errors of its own
        code = getattr(error, "error_code", "")
        if code in USERS_FAULTS and code != NOT_THERE:
            raise UserError(
                f"{where}: {first_line(error)}", "mend the address, or MLFLOW_TRACKING_URI"
            ) from error
        raise InfraError(
            f"{where} cannot be loaded: {first_line(error)}", "try again when MLflow answers"
        ) from error


@contextmanager
def upload_faults_typed(what: str) -> Iterator[None]:
    """Raise InfraError for what the store of MLflow's files refuses in the body; a bug as it is."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, StageError, OSError):
        raise
    except Exception as error:  # every kind of store has a client with errors of its own
        if type(error).__module__ == "builtins":
            raise
        raise InfraError(
            f"the store of MLflow's files does not take {what}: {first_line(error)}",
            "mend it, or your rights there; then try again",
        ) from error


def registry_uri() -> str:
    """Where versions go, without user and password. Asks no MLflow, whose import takes seconds."""
    uri = os.environ.get("MLFLOW_REGISTRY_URI") or os.environ.get("MLFLOW_TRACKING_URI", "")
    return config.without_password(uri)


def first_line(error: Exception) -> str:
    return redacted((str(error).splitlines() or [type(error).__name__])[0])[:300]
