"""What needs a GPU, and says so where there is none."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU that torch sees, and `make gpu`")


@pytest.fixture
def unused_gpus() -> None:
    """GPUs that this process has not used yet: what torch takes of one it keeps to its end."""
    assert not torch.cuda.is_initialized()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs unused GPUs first."""
    items.sort(key=lambda item: "unused_gpus" not in getattr(item, "fixturenames", ()))
