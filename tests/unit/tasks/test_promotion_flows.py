"""What is on record of the flows that move the champion, and may be killed."""

from pathlib import Path

import cloudpickle
import pytest

from components.errors import UserError
from flows.promote import promote
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
