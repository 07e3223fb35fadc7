"""What the start form's schema, by which Prefect judges what is typed, refuses."""

import pytest
from jsonschema import Draft202012Validator

from components.errors import UserError
from flows.form import Other, Overrides
from flows.pipeline import pipeline
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


def test_a_value_from_the_command_line_may_be_longer_than_what_is_typed_into_the_form() -> None:
    sources = [{"kind": "files", "url": "ü" * 4000}]
    overrides = Overrides.of({"ingest.sources": sources})
    assert overrides.values() == {"ingest.sources": sources}
    values = pipeline.validate_parameters({"overrides": overrides})
    assert values["overrides"].values() == overrides.values()


@pytest.mark.parametrize(
    "text", ["2024-01-01", "[2024-01-01T00:00:00Z]", "!!binary aGk=", "!!set {a}"]
)
def test_what_only_yaml_knows_is_refused_with_the_params_name(text: str) -> None:
    overrides = Overrides(others=[Other(key="seed", value=text)])
    with pytest.raises(UserError, match=r"seed: .* is not JSON serializable"):
        overrides.values()
