"""`k8s/nodes.yaml` and what is refused in it."""

from pathlib import Path

import pytest

from components.errors import UserError
from tasks.nodes.policy import PATH, load_policy
from tests.unit.nodes.builders import POLICY

TEXT = (Path(__file__).parents[3] / PATH).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("max_repairs: 5", "max_repairs: 0", "states.max_repairs: Input should be greater"),
        ("max_fraction: 0.2", "max_fraction: 20", "breaker.max_fraction: Input should be less"),
        ("resync_s: 30", "resync_s: 30\n  x: 1", "controller.x: unknown key"),
        ("probation_s: 86400", "", "states.probation_s: missing"),
        ("at_risk_until: 0.3", "at_risk_until: 0.5", "risk.at_risk_until: 0.5 is not below"),
        ("silent_after_s: 900", "silent_after_s: 300", "agent.silent_after_s: 300 is not above"),
    ],
)
def test_a_fault_in_the_policy_is_one_line(tmp_path: Path, old: str, new: str, line: str) -> None:
    assert old in TEXT
    path = tmp_path / "nodes.yaml"
    path.write_text(TEXT.replace(old, new), encoding="utf-8")
    with pytest.raises(UserError) as refused:
        load_policy(path)
    assert refused.value.message.startswith(f"{path}: {line}")
    assert "\n" not in refused.value.message


def test_the_shipped_numbers_are_those_of_the_design() -> None:
    states, breaker = POLICY.states, POLICY.breaker
    assert (states.soft_fails_to_quarantine, states.soft_window_s) == (2, 86400)
    assert (states.max_repairs, states.repair_window_s, states.probation_s) == (5, 604800, 86400)
    assert (breaker.at_least, breaker.max_fraction, breaker.window_s) == (1, 0.2, 600)
