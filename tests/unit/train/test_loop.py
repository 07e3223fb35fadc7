import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from components.errors import InfraError, UserError
from components.metrics import QuietSink
from components.train import stop
from components.train.guard import GuardSettings
from components.train.loop import Batch, Loss, TrainResult, train
from components.train.update import AdamWSettings

SETTINGS = AdamWSettings(beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1)


class Notes(QuietSink):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.points: list[tuple[int, dict[str, float]]] = []

    def info(self, message: str) -> None:
        self.lines.append(message)

    def metrics(self, values: Any, step: int) -> None:
        self.points.append((step, dict(values)))


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def squared_error(model: nn.Module, batch: Batch) -> Loss:
    error = (model(batch["x"]) - batch["y"]).square().sum()
    return Loss(error, batch["x"].shape[0], {"absolute": error.sqrt()})


def data(step: int, sizes: Sequence[int]) -> list[Batch]:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(sum(sizes), 4, generator=generator)
    y = x.sum(1, keepdim=True)
    parts = zip(x.split(list(sizes)), y.split(list(sizes)), strict=True)
    return [{"x": part_x, "y": part_y} for part_x, part_y in parts]


def run(
    model: nn.Module,
    folder: Path,
    batches_at: Callable[[int], Sequence[Batch]] = lambda step: data(step, [4, 4]),
    loss_fn: Callable[[nn.Module, Batch], Loss] = squared_error,
    num_steps: int = 12,
    sink: QuietSink | None = None,
    **changes: Any,
) -> TrainResult:
    settings: dict[str, Any] = {
        "num_steps": num_steps,
        "optimiser": SETTINGS,
        "schedule": lambda step: 1e-2,
        "max_grad_norm": 1.0,
        "seed": 3,
        "checkpoints": folder,
        "checkpoint_every_steps": 5,
        "keep_checkpoints": 2,
        "guard": GuardSettings(spike_z=8.0, window_steps=5, max_skipped_steps=2),
        "sink": sink or QuietSink(),
    }
    return train(model, batches_at, loss_fn, **(settings | changes))


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


def test_it_equals_a_plain_torch_loop(tmp_path: Path) -> None:
    ours, plain = small_net(), small_net()
    result = run(ours, tmp_path)
    matrices = [weight for weight in plain.parameters() if weight.ndim == 2]
    vectors = [weight for weight in plain.parameters() if weight.ndim == 1]
    adamw = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": 0.1},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=1e-2,
        betas=(0.9, 0.95),
    )
    losses = []
    for step in range(12):
        (batch,) = data(step, [8])
        loss = (plain(batch["x"]) - batch["y"]).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad()
        losses.append(loss.item())
    torch.testing.assert_close(weights(ours), weights(plain), rtol=1e-5, atol=1e-6)
    assert result.losses == pytest.approx(losses, rel=1e-5)


def test_the_split_into_micro_batches_does_not_change_the_result(tmp_path: Path) -> None:
    whole, parts = small_net(), small_net()
    run(whole, tmp_path / "a", lambda step: data(step, [8]))
    run(parts, tmp_path / "b", lambda step: data(step, [1, 5, 2]))
    torch.testing.assert_close(weights(whole), weights(parts), rtol=1e-5, atol=1e-6)


def test_figures_are_divided_by_the_weight_and_named(tmp_path: Path) -> None:
    sink = Notes()
    run(small_net(), tmp_path, sink=sink, num_steps=1)
    (step, point), *_ = sink.points
    errors = [squared_error(small_net(), batch).total.item() for batch in data(0, [4, 4])]
    assert step == 1
    assert point["train/loss_nats"] == pytest.approx(sum(errors) / 8, rel=1e-5)
    assert point["train/absolute"] == pytest.approx(sum(map(math.sqrt, errors)) / 8, rel=1e-5)
    assert point["train/learning_rate"] == 1e-2


def test_a_run_goes_on_from_its_checkpoint_to_the_same_weights_and_figures(tmp_path: Path) -> None:
    whole, resumed = small_net(), small_net()
    want = run(whole, tmp_path / "whole", evaluate=lambda model: {"valid/x": 1.0})

    def fails(step: int) -> list[Batch]:
        if step == 8:
            raise KeyboardInterrupt
        return data(step, [4, 4])

    with pytest.raises(KeyboardInterrupt):
        run(small_net(), tmp_path / "cut", fails, evaluate=lambda model: {"valid/x": 1.0})
    got = run(resumed, tmp_path / "cut", evaluate=lambda model: {"valid/x": 1.0})

    assert got.resumed_from_step == 5
    assert torch.equal(weights(whole), weights(resumed))
    assert got.losses == want.losses
    assert got.evaluations == want.evaluations == [(0, {"valid/x": 1.0}), (12, {"valid/x": 1.0})]


def test_its_speed_is_that_of_the_steps_after_the_first_which_compiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 100.0, 100.0, 101.0, 101.0, 102.0, 102.0, 104.0])
    monkeypatch.setattr("components.train.loop.time.perf_counter", lambda: next(clock))
    rows = [{"x": torch.ones(2, 4), "y": torch.ones(2, 1), "input_ids": torch.zeros(6)}]
    result = run(small_net(), tmp_path, batches_at=lambda step: rows, num_steps=4)
    assert result.tokens_per_s == 18 / 4
    assert result.elapsed_s == 104.0


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    first, second = small_net(), small_net()
    run(first, tmp_path)
    result = run(second, tmp_path, lambda step: pytest.fail("trained again"))
    assert result.resumed_from_step == 12
    assert torch.equal(weights(first), weights(second))


@pytest.mark.parametrize("bad", [math.nan, 1e6])
def test_a_bad_batch_is_left_out_and_the_run_goes_on(tmp_path: Path, bad: float) -> None:
    def loss_fn(model: nn.Module, batch: Batch) -> Loss:
        loss = squared_error(model, batch)
        return loss._replace(total=loss.total * batch["factor"])

    def batches(step: int) -> list[Batch]:
        factor = torch.tensor(bad if step == 9 else 1.0)
        return [{**batch, "factor": factor} for batch in data(0, [4, 4])]

    sink, seen = Notes(), {}

    def watch(step: int) -> list[Batch]:
        seen[step] = weights(model).clone()
        return batches(step)

    model = small_net()
    result = run(model, tmp_path, watch, loss_fn, sink=sink)
    assert result.skipped_steps == [9]
    assert torch.equal(seen[9], seen[10])
    assert not torch.equal(seen[10], seen[11])
    assert any("step 9: the loss" in line and "left out" in line for line in sink.lines)


def test_a_loss_that_stays_nan_ends_the_run(tmp_path: Path) -> None:
    def nan(model: nn.Module, batch: Batch) -> Loss:
        return Loss(squared_error(model, batch).total * math.nan, 1)

    with pytest.raises(UserError, match=r"step 2: the loss is nan, at learning rate 0.01"):
        run(small_net(), tmp_path, loss_fn=nan)


def test_a_wish_to_stop_leaves_a_checkpoint_to_go_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, resumed = small_net(), small_net()
    run(whole, tmp_path / "whole")
    wishes = iter([False] * 7 + [True])
    monkeypatch.setattr(stop, "is_requested", lambda: next(wishes))
    with pytest.raises(InfraError, match="stopped after checkpoint 7/12"):
        run(small_net(), tmp_path / "cut")
    monkeypatch.undo()
    assert run(resumed, tmp_path / "cut").resumed_from_step == 7
    assert torch.equal(weights(whole), weights(resumed))


def test_checkpoints_of_another_model_are_refused(tmp_path: Path) -> None:
    run(small_net(), tmp_path)
    with pytest.raises(UserError, match="another model or seed"):
        run(nn.Sequential(nn.Linear(4, 1)), tmp_path)


def test_a_wish_to_stop_before_the_first_step_has_step_0_looked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        looks.append(weights(model))
        return {"valid/x": 1.0}

    monkeypatch.setattr(stop, "is_requested", lambda: True)
    with pytest.raises(InfraError, match="stopped after checkpoint 0/12"):
        run(small_net(), tmp_path, evaluate=evaluate)
    monkeypatch.undo()
    result = run(small_net(), tmp_path, evaluate=evaluate)
    assert result.evaluations == [(0, {"valid/x": 1.0}), (12, {"valid/x": 1.0})]
    assert len(looks) == 2
