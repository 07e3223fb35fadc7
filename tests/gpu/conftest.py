"""What needs a GPU, and says so where there is none."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU that torch sees, and `make gpu`")
