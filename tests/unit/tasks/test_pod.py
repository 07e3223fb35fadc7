from pathlib import Path

import pytest
import torch

from components.contract import Json
from components.errors import InfraError, UserError
from components.section import read_yaml
from tasks.pod import _asked, _place, _typed


@pytest.mark.parametrize(
    "error",
    [
        torch.distributed.DistBackendError("NCCL error in ProcessGroupNCCL.cpp"),
        torch.distributed.DistNetworkError("the client socket has timed out"),
        torch.distributed.DistStoreError("wait timeout"),
        RuntimeError(
            "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer"
        ),
        OSError(28, "No space left on device"),
    ],
)
def test_what_the_network_or_the_disk_did_is_the_infrastructures(
    error: Exception, tmp_path: Path
) -> None:
    assert isinstance(_typed(error, "left", tmp_path), InfraError)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_too_little_memory_is_the_users_and_is_not_retried(
    error: Exception, tmp_path: Path
) -> None:
    typed = _typed(error, "left", tmp_path)
    assert (type(typed), typed.message) == (UserError, "left ran out of memory")
    assert "smaller" in typed.hint


def test_anything_else_is_a_bug(tmp_path: Path) -> None:
    for error in (RuntimeError("shapes cannot be multiplied"), ZeroDivisionError("by zero")):
        typed = _typed(error, "left", tmp_path)
        assert typed.kind == "bug"
        assert typed.message == f"{type(error).__name__}: {error}"
        assert typed.hint == f"the trace is in {tmp_path}/log.txt"


def test_a_container_works_with_its_own_cores_and_not_with_its_launchers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = read_yaml(Path(__file__).parents[3] / "params.yaml")
    request: dict[str, Json] = {
        "params": {name: params[name] for name in ("seed", "tokenize")}, "inputs": [],
        "cache": str(tmp_path), "num_workers": 2,
    }  # fmt: skip
    monkeypatch.delenv("HEADRACE_NUM_WORKERS", raising=False)
    assert _asked("tokenize", tmp_path, request, None)[1].num_workers == 2
    monkeypatch.setenv("HEADRACE_NUM_WORKERS", "7")
    assert _asked("tokenize", tmp_path, request, None)[1].num_workers == 7


def test_a_share_is_one_of_a_number() -> None:
    assert [_place(text) for text in ("0/1", "0/3", "2/3")] == [(0, 1), (0, 3), (2, 3)]
    for text in ("3/3", "-1/3", "0/0", "1", "1/2/3", "$(JOB_COMPLETION_INDEX)/3"):
        with pytest.raises(ValueError, match=r".+"):
            _place(text)
