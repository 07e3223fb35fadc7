import pytest
import torch

from tasks.pod import _kind_of


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
def test_what_the_network_or_the_disk_did_is_the_infrastructures(error: Exception) -> None:
    assert _kind_of(error) == ("infra", 75)


def test_too_little_gpu_memory_is_the_users_and_anything_else_a_bug() -> None:
    assert _kind_of(torch.OutOfMemoryError("CUDA out of memory")) == ("user", 64)
    assert _kind_of(RuntimeError("shapes cannot be multiplied")) == ("bug", 70)
    assert _kind_of(ZeroDivisionError("by zero")) == ("bug", 70)
