"""What holds for every test."""

import gc
import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

# Tests run side by side. Threads that wait for each other would spin, and hold the core that the
# other test's threads wait for: training beside training took five times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Most tests compare with a CPU's values, on tensors made there: `make gpu` alone sees a GPU.
if not os.environ.get("GPU_TESTS"):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

# An example that takes 10 ms alone takes 500 beside another process: time is no property here.
settings.register_profile("headrace", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("headrace")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep what the tests import out of garbage collection: looking at it again and again, while it is
    imported and at every test, took a quarter of the unit tests' time.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()
