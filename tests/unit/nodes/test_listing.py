"""What `headrace nodes` shows."""

import argparse
import io
import json

import pytest
from rich.console import Console

from tasks.nodes.calls import list_stage_pods
from tasks.nodes.command import add_arguments
from tasks.nodes.listing import history_lines, rows, table
from tasks.nodes.names import HEALTH_ANNOTATION, POOL_LABEL
from tasks.nodes.record import Evidence, Record, Risk, Transition, to_json
from tasks.nodes.ring import AgentWord
from tests.unit.cluster.servers import lists, serving
from tests.unit.nodes.builders import DAY, NOW, OK, node, pod, word


def there(name: str, record: Record, pool: str = "h100") -> dict[str, object]:
    return node(name, labels={POOL_LABEL: pool}, annotations={HEALTH_ANNOTATION: to_json(record)})


SICK = Record(
    "draining", NOW, reason="xid failed, which is fatal", cause="xid",
    evidence=(Evidence("xid", "[red]Xid 79[/red]", True, 3, 79.0),),
    risk=Risk(0.52, True, (("past_quarantines", 0.4),)),
    history=(
        Transition(NOW - 9, "healthy", "quarantined", "xid failed, which is fatal"),
        Transition(NOW, "quarantined", "draining", "xid is fatal: nobody waits"),
    ),
)  # fmt: skip


def test_nodes_are_listed_by_pool_and_name_with_the_pods_that_run_there() -> None:
    listed = rows(
        [there("b", SICK), there("a", Record("healthy", NOW)), node("c", labels={})],
        [pod("p1", "b"), pod("p2", "b", phase="Failed"), pod("p3", "a")],
        NOW,
    )
    assert [(row.pool, row.node, row.state) for row in listed] == [
        ("cpu", "c", "healthy"),
        ("h100", "a", "healthy"),
        ("h100", "b", "draining"),
    ]
    assert [row.stage_pods for row in listed] == [(), ("team/p3",), ("team/p1",)]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (word(OK, at=NOW - 59), "59 s"),
        (word(OK, at=NOW - 360), "6 min"),
        (word(OK, at=NOW - 2 * DAY - 9), "2 d"),
        (None, "none"),
    ],
)
def test_a_node_whose_agent_is_silent_is_seen_by_the_age_of_its_last_report(
    said: AgentWord | None, shown: str
) -> None:
    """Nothing speaks against such a node, and nobody looks at it."""
    [row] = rows([node("a", said)], [], NOW)
    (agent,) = (one for one in table([row]).columns if one.header == "agent")
    assert [str(cell) for cell in agent.cells] == [shown]
    assert row.as_json()["agent_age_s"] == (NOW - said.report.at if said else None)


def test_the_table_shows_what_others_wrote_as_it_is() -> None:
    record = Record("suspect", NOW, reason="[bold]ecc[/bold] failed once", held_since_at=NOW)
    console = Console(file=io.StringIO(), width=200)
    console.print(table(rows([there("a", record)], [], NOW)))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "suspect, held by the breaker" in shown
    assert "[bold]ecc[/bold] failed once" in shown
    assert "2027-01-15T08:00:00Z" in shown


def test_the_history_of_a_node_has_its_evidence_and_its_risk() -> None:
    [row] = rows([there("b", SICK)], [], NOW)
    assert history_lines(row) == [
        "2027-01-15T07:59:51Z  healthy -> quarantined: xid failed, which is fatal",
        "2027-01-15T08:00:00Z  quarantined -> draining: xid is fatal: nobody waits",
        "evidence: xid, GPU 3, fatal: [red]Xid 79[/red]",
        "risk 0.52: past_quarantines 0.4",
    ]
    [calm] = rows([there("a", Record("healthy", NOW))], [], NOW)
    assert history_lines(calm) == ["a has no history", "risk 0"]


def test_a_row_is_json_with_all_there_is() -> None:
    [row] = rows([there("b", SICK)], [pod("p1", "b")], NOW)
    body = json.loads(json.dumps(row.as_json()))
    assert (body["state"], body["risk"], body["stage_pods"]) == ("draining", 0.52, ["team/p1"])
    assert body["history"][0]["to"] == "quarantined"
    assert body["evidence"][0]["value"] == 79.0
    assert body["dear_ok_until"] is None


@pytest.mark.parametrize(
    ("words", "verb"),
    [
        ([], None),
        (["--history", "n1"], None),
        (["--json", "--selector", "a=b"], None),
        (["reset", "n1", "--why", "new mainboard"], "reset"),
        (["repaired", "n1"], "repaired"),
    ],
)
def test_the_command_line_has_a_list_and_two_verbs(words: list[str], verb: str | None) -> None:

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert parser.parse_args(words).nodes_verb == verb


def test_a_reset_needs_a_reason(capsys: pytest.CaptureFixture[str]) -> None:

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["reset", "n1"])
    assert "--why" in capsys.readouterr().err


def test_of_the_stage_pods_those_that_have_ended_are_not_even_asked_for() -> None:
    with serving(lists(1, pod("a"))) as (server, api):
        assert list_stage_pods(api, "team") == [pod("a")]
        ((_, path, query, _),) = server.asked
        assert path == "/api/v1/namespaces/team/pods"
        assert query == {
            "labelSelector": "headrace.dev/stage",
            "fieldSelector": "status.phase!=Succeeded,status.phase!=Failed",
        }
