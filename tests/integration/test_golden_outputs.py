"""The stages' outputs on the small corpus, to the bit: what `make accept` trusts.

The data stages' digests hold on any machine. Those of the stages that train depend on how a
processor adds floats, so they are kept by a fingerprint of that; on a machine whose fingerprint is
not in the file the test is skipped, and `make accept` refuses. `make golden` records this machine.
"""

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch

from components.contract import STAGES
from tests.integration import small

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "digests.json"
MODE = os.environ.get("GOLDEN", "")
"""Empty: compare what is known. `required`: fail where nothing is known. `record`: write."""
DATA_STAGES = STAGES[: STAGES.index("pretrain")]


def float_fingerprint() -> str:
    """Digest of a few steps of arithmetic of the kinds that training does."""
    torch.set_num_threads(small.NUM_WORKERS)
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(512, 128, generator=generator) for _ in range(2))
    for _ in range(4):
        scores = torch.softmax(hidden @ weight.T / 11, dim=-1)
        hidden = torch.nn.functional.silu(scores @ hidden).exp().rsqrt()
    return hashlib.sha256(hidden.numpy().tobytes()).hexdigest()[:12]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_gives_the_recorded_bytes(stage: str, request: pytest.FixtureRequest) -> None:
    machine = "any" if stage in DATA_STAGES else float_fingerprint()
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    known = golden.get(machine, {}).get(stage)
    if known is None and MODE != "record":
        reason = f"no digest of {stage} for floats like this machine's ({machine}); `make golden`"
        (pytest.fail if MODE == "required" else pytest.skip)(reason)
    if MODE:  # one stage may be enough
        folder = request.getfixturevalue("small_project")
        small.dvc(folder, "repro", stage)
    else:
        folder = request.getfixturevalue("small_chain")
    digest = small.digests(folder)[stage]
    if MODE == "record":
        golden.setdefault(machine, {})[stage] = digest
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(golden, indent=2, sort_keys=True) + "\n")
    else:
        assert digest == known
