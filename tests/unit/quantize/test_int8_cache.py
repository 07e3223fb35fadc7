import torch
from transformers import DynamicCache

from components.quantize.calibration import cache_scales
from components.quantize.int8_cache import LayerScales, int8_cache, num_bytes
from tests.small_models import small_model

IDS = torch.randint(9, 300, (3, 24), generator=torch.Generator().manual_seed(1))


def test_the_cache_holds_a_quarter_of_fp32() -> None:
    model = small_model()
    scales = cache_scales(model, IDS)
    full, small = DynamicCache(config=model.config), int8_cache(scales)
    model(IDS, past_key_values=full, use_cache=True)
    model(IDS, past_key_values=small, use_cache=True)
    # 2 layers x keys and values x 2 heads x 16 numbers for each of 72 tokens
    assert num_bytes(small) == 2 * 2 * 2 * 16 * 72
    assert num_bytes(full) == 4 * num_bytes(small)
    assert small.layers[0].keys.dtype == torch.int8


def test_calibrated_states_are_read_back_to_half_a_step() -> None:
    model = small_model()
    scales = cache_scales(model, IDS)
    full, small = DynamicCache(config=model.config), int8_cache(scales)
    model(IDS, past_key_values=full, use_cache=True)
    keys = full.layers[0].keys
    read_back, _ = small.update(keys, full.layers[0].values, 0)
    # The largest state is half a step beyond the highest code.
    assert (read_back - keys).abs().max() <= 0.5001 * scales[0].keys


def test_answers_hardly_change_and_the_same_tokens_come_out_in_parts_or_at_once() -> None:
    model = small_model()
    scales = cache_scales(model, IDS)
    with torch.inference_mode():
        exact = model(IDS).logits
        cache = int8_cache(scales)
        first = model(IDS[:, :10], past_key_values=cache, use_cache=True).logits
        rest = model(IDS[:, 10:], past_key_values=cache, use_cache=True).logits
        at_once = model(IDS, past_key_values=int8_cache(scales), use_cache=True).logits
    assert cache.get_seq_length() == 24
    torch.testing.assert_close(torch.cat([first, rest], dim=1), at_once, atol=1e-4, rtol=0)
    assert 0 < (at_once - exact).abs().mean() < 0.05 * exact.std()


def test_a_state_beyond_the_scale_is_clipped() -> None:
    cache = int8_cache([LayerScales(torch.tensor([0.1]), torch.tensor([0.5]))])
    states = torch.tensor([-100.0, -12.8, 0.26, 12.7, 100.0]).reshape(1, 1, 1, 5)
    keys, values = cache.update(states, states, 0)
    torch.testing.assert_close(keys.flatten(), torch.tensor([-12.8, -12.8, 0.3, 12.7, 12.7]))
    torch.testing.assert_close(values.flatten(), torch.tensor([-64.0, -13.0, 0.5, 12.5, 63.5]))
