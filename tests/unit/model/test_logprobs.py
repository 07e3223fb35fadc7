import torch

from components.model.logprobs import response_logprobs, summed_logprobs
from components.model.rows import ResponseRow, padded_batch
from components.train.responses import packed_batch
from tests.small_models import small_model

ROWS = [
    ResponseRow([6, 20, 21, 22, 7], 2),
    ResponseRow([6, 30, 31, 32, 33, 34, 35, 36, 7], 5),
    ResponseRow([6, 40, 7], 2),
    ResponseRow([6, 50, 51, 52, 53, 54, 7], 3),
]


def one_by_one(model: torch.nn.Module) -> list[float]:
    """From the model's own logits of each row alone, token by token."""
    sums = []
    for row in ROWS:
        logits = model(input_ids=torch.tensor([row.ids])).logits[0].double().log_softmax(dim=-1)
        sums.append(sum(logits[i - 1, row.ids[i]].item() for i in range(row.start, len(row.ids))))
    return sums


def test_padded_and_packed_rows_give_the_sums_of_each_row_alone() -> None:
    model = small_model().eval()
    with torch.no_grad():
        want = torch.tensor(one_by_one(model))
        for batch in (padded_batch(ROWS), packed_batch(ROWS, 12), packed_batch(ROWS, 64)):
            torch.testing.assert_close(summed_logprobs(model, batch), want, atol=1e-4, rtol=1e-5)
    for max_tokens in (1, 10, 1000):
        got = response_logprobs(model, ROWS, max_tokens)
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-5)


def test_the_gradient_comes_from_the_answers_tokens_alone() -> None:
    model = small_model()
    loss = summed_logprobs(model, packed_batch(ROWS, 16)).sum()
    loss.backward()
    packed = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    torch.stack([summed_logprobs(model, padded_batch([row]))[0] for row in ROWS]).sum().backward()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(packed[name], weight.grad, atol=2e-5, rtol=1e-4)
