import math

import pytest
import torch

from components.sft.neftune import lengths_of_documents, noisy


def test_each_position_knows_the_length_of_its_own_conversation() -> None:
    positions = torch.tensor([[0, 1, 2, 0, 1], [0, 0, 1, 2, 3]])
    assert lengths_of_documents(positions).tolist() == [[3, 3, 3, 2, 2], [1, 4, 4, 4, 4]]


@pytest.mark.parametrize("alpha", [5.0, 45.0])
def test_the_noise_is_uniform_with_half_width_alpha_over_root_of_length_times_width(
    alpha: float,
) -> None:
    torch.manual_seed(0)
    length, width = 256, 512
    positions = torch.arange(length).repeat(4, 1)
    noise = noisy(torch.zeros(4, length, width), positions, alpha)
    half_width = alpha / math.sqrt(length * width)
    assert noise.abs().max().item() == pytest.approx(half_width, rel=1e-4)
    assert noise.std().item() == pytest.approx(half_width / math.sqrt(3), rel=0.01)
    assert abs(noise.mean().item()) < 0.01 * half_width
    # The norm over a conversation depends on alpha alone: alpha / sqrt(3).
    norms = noise.flatten(1).norm(dim=1)
    assert norms.tolist() == pytest.approx([alpha / math.sqrt(3)] * 4, rel=0.01)


def test_packed_conversations_get_the_noise_of_their_own_length() -> None:
    torch.manual_seed(0)
    positions = torch.cat([torch.arange(16), torch.arange(400)]).unsqueeze(0)
    noise = noisy(torch.zeros(1, 416, 256), positions, alpha=5.0)
    assert noise[0, :16].std().item() == pytest.approx(5 / math.sqrt(3 * 16 * 256), rel=0.05)
    assert noise[0, 16:].std().item() == pytest.approx(5 / math.sqrt(3 * 400 * 256), rel=0.05)
