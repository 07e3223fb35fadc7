"""What is on record of the flows that move the champion, and may be killed."""

import re
from pathlib import Path

import cloudpickle
import httpx
import pytest
from prefect import Flow
from prefect.client.schemas.objects import State

from components.errors import UserError
from components.gates.promotion import Verdict
from flows import promote as flows_promote
from flows.promote import promote, rollback
from tasks import flow_record, promotion


def test_a_promotion_that_fails_is_on_record_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*words: object) -> None:
        (path,) = flow_record.record_paths(tmp_path)
        during = flow_record.read(path)
        assert during is not None
        assert (during.flow, during.state, during.ended_at) == ("promote", "RUNNING", None)
        raise UserError("no such version", "see `headrace models`")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(promotion, "promote", refuse)
    state = promote.fn("7")
    assert state.is_failed()
    (path,) = flow_record.record_paths(tmp_path)
    record = flow_record.read(path)
    assert record is not None
    assert record.state == "FAILED"
    assert record.ended_at is not None


def test_the_serving_process_can_hand_a_promotion_to_another() -> None:
    assert set(cloudpickle.loads(cloudpickle.dumps(promote)).parameters.properties) == {
        "version", "override",
    }  # fmt: skip


def test_a_promotion_whose_verdict_prefect_does_not_take_is_completed_for_the_alias_has_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        request = httpx.Request("POST", "http://jane:planted@prefect.example/api/artifacts")
        raise httpx.HTTPStatusError("502", request=request, response=httpx.Response(502))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(flows_promote, "create_markdown_artifact", refuse)
    row = Verdict("loss", "1", "", "<= 2", True)
    moved = promotion.Promotion("7", "", [row], True)
    monkeypatch.setattr(promotion, "promote", lambda *_: moved)
    state = promote.fn()
    assert (state.type.value, state.message) == ("COMPLETED", "version 7 is champion")


def test_a_full_disk_is_one_line_of_the_flow_that_moves_the_champion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        flow_record, "recorded", lambda *_: (_ for _ in ()).throw(OSError(28, "No space", "/runs"))
    )
    state = rollback.fn("slow")
    assert state.is_failed()
    assert state.message == (
        "infra error: No space left on device: /runs; "
        "free some there (`df -h` says how full it is) and run it again"
    )


@pytest.mark.parametrize("flow", [promote, rollback])
def test_a_reason_with_a_password_is_refused_by_the_form_before_prefect_keeps_it(
    flow: Flow[..., State],
) -> None:
    fields = flow.parameters.properties
    pattern = re.compile(fields["reason" if flow is rollback else "override"]["pattern"])
    assert pattern.search("it leaks: see https://wiki.example/leak")
    assert not pattern.search("see https://jane:planted@wiki.example/leak")
