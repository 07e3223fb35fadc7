"""The data files are complete, and are read as their heads say."""

from pathlib import Path

import pytest

from components.errors import UserError
from components.preflight.thresholds import SKUS, load_thresholds, load_xids
from tests.unit.preflight.recordings.made import THRESHOLDS

ACTIONS = {
    "restart_app": (13, 31, 32, 94),
    "ignore": (43, 63, 92),
    "reset_gpu": (46, 62, 64, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156, 158),
    "restart_node": (79, 160),
    "workflow": (45, 48, 74, *range(144, 151)),
}
"""NVSentinel's reading, as the reference gives it."""


@pytest.mark.parametrize(
    ("names", "sku"),
    [
        ((), "cpu"),
        (("NVIDIA H100 80GB HBM3",) * 8, "h100-sxm"),
        (("NVIDIA H100 PCIe",), "h100-pcie"),
        (("NVIDIA H200",), "h200"),
        (("NVIDIA H200 NVL",), "h200-nvl"),
        (("NVIDIA A100-SXM4-80GB",), "a100-sxm-80"),
        (("NVIDIA A100-SXM4-40GB",), "a100-sxm-40"),
        (("NVIDIA A100 80GB PCIe",), "a100-pcie"),
        (("NVIDIA L4",), "l4"),
        (("NVIDIA L40S",), "l40s"),
        (("NVIDIA L40",), "default"),
        (("NVIDIA GH200 480GB",), "default"),
        (("NVIDIA H200", "NVIDIA L4"), "default"),
    ],
)
def test_a_sku_is_found_by_whole_words_of_nvmls_name(names: tuple[str, ...], sku: str) -> None:
    assert THRESHOLDS.sku_of(names).name == sku


def test_a_kind_is_known_by_a_key_or_by_words_of_nvmls_name_in_any_case() -> None:
    known = ("h100-sxm", "h100", "H200", "a100", "l40s")
    assert all(THRESHOLDS.knows(kind) for kind in known)
    assert not any(THRESHOLDS.knows(kind) for kind in ("fast", "h10", "cpu", "default", "b300"))


def test_what_a_sku_does_not_say_holds_as_by_default() -> None:
    default, h100 = THRESHOLDS.skus["default"], THRESHOLDS.skus["h100-sxm"]
    assert h100.node == default.node
    assert h100.gpu.temperature_margin_c == default.gpu.temperature_margin_c
    assert (h100.gpu.nvlinks, default.gpu.nvlinks) == (18, None)
    assert h100.dear_hours == 24


def test_a_new_sku_is_a_few_lines_of_yaml(tmp_path: Path) -> None:
    path = tmp_path / "skus.yaml"
    path.write_text(SKUS.read_text() + "\nb200:\n  matches: [B200]\n  gpu: {nvlinks: 18}\n")
    assert load_thresholds(path).sku_of(("NVIDIA B200",)).gpu.nvlinks == 18


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cpu: {}\n", "needs the keys default and cpu"),
        ("[1]\n", "needs the keys"),
        (SKUS.read_text() + "\nx: {gpu: {nvlink: 3}}\n", "x.gpu.nvlink: unknown key"),
        (SKUS.read_text() + "\nx: {dear_hours: 0}\n", "x.dear_hours"),
        (SKUS.read_text() + "\nx: {node: 3}\n", "x.node"),
    ],
)
def test_a_wrong_file_is_the_users_error_and_names_the_key(
    tmp_path: Path, text: str, told: str
) -> None:
    path = tmp_path / "skus.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=told):
        load_thresholds(path)


def test_the_xids_are_read_as_nvsentinel_does() -> None:
    for action, numbers in ACTIONS.items():
        assert {THRESHOLDS.xids[number].action for number in numbers} == {action}
    assert not any(THRESHOLDS.xids[number].fatal for number in (13, 31, 32, 94, 43, 63, 92, 45))


def test_what_a_reset_a_restart_or_hands_must_mend_is_fatal_and_nothing_milder() -> None:
    for number, xid in THRESHOLDS.xids.items():
        if xid.action in ("reset_gpu", "restart_node", "replace"):
            assert xid.fatal, number
        if xid.action in ("ignore", "restart_app"):
            assert not xid.fatal, number
    assert len(THRESHOLDS.xids) > 100


def test_a_wrong_row_of_the_xids_names_its_number(tmp_path: Path) -> None:
    path = tmp_path / "xid.yaml"
    path.write_text("79: {action: pray, fatal: true, meaning: gone}\n")
    with pytest.raises(UserError, match=r"79\.action"):
        load_xids(path)
