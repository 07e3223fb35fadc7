"""What the start form's schema, by which Prefect judges what is typed, refuses."""

import pytest
from jsonschema import Draft202012Validator

from flows.form import Other
from tests.unit.test_addresses import WITH_SECRETS, WITHOUT_SECRETS


def is_taken(value: str) -> bool:
    """Whether Prefect takes it, before anything is kept."""
    typed = {"key": "seed", "value": value}
    return not list(Draft202012Validator(Other.model_json_schema()).iter_errors(typed))


@pytest.mark.parametrize("address", [address for address, _ in WITH_SECRETS])
def test_a_secret_is_refused_before_prefect_keeps_it(address: str) -> None:
    assert not is_taken(address)
    assert not is_taken(f"[a,\n{address.replace('access_token', 'Access_Token')}]")


@pytest.mark.parametrize("value", [*WITHOUT_SECRETS, "0.5", "[en, de]", "null", "token=1", ""])
def test_a_value_without_a_secret_is_taken(value: str) -> None:
    assert is_taken(value)
