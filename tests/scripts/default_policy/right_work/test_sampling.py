import pytest
import torch

from scripts.default_policy.right_work.sampling import sample, sample_together
from scripts.default_policy.tiny_tokenizer import train_tokenizer
from scripts.default_policy.warm_start import untrained_model

END = 2
PROMPTS = [[5, 6, 7, 8, 9], [10, 11], [12, 13, 14]]


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    found = untrained_model(train_tokenizer(["1+1=2"]), seed=0).eval()
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.mul_(3)  # a distribution that is far from uniform
    return found


def drawn(model, prompts, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    options = {"max_tokens": 6, "end_id": END, **options}
    return sample(model, prompts, generator=generator, **options)


def test_the_seed_decides(model):
    assert drawn(model, PROMPTS) == drawn(model, PROMPTS)
    assert drawn(model, PROMPTS) != drawn(model, PROMPTS, seed=1)


def test_a_completion_ends_with_its_end_or_at_the_limit(model):
    prompts = PROMPTS * 60
    likely = torch.softmax(model(torch.tensor([[10, 11]])).logits[0, -1], -1).argmax().item()
    found = drawn(model, prompts, end_id=likely)
    assert {ids[-1] == likely or len(ids) == 6 for ids in found} == {True}
    assert any(len(ids) < 6 for ids in found)
    assert all(likely not in ids[:-1] for ids in found)


def test_tokens_come_from_the_models_own_distribution_behind_padding(model):
    """The short prompt is padded beside the long one; 4,000 draws of its first two tokens."""
    count = 4000
    prompts = [[10, 11]] * count + [PROMPTS[0]]
    generator = torch.Generator().manual_seed(0)
    found = sample_together(model, prompts, 2, END, generator)[:count]
    expected = torch.softmax(model(torch.tensor([[10, 11]])).logits[0, -1], -1)
    first = torch.bincount(torch.tensor([ids[0] for ids in found]), minlength=len(expected)) / count
    # Each share's mean distance is at most its deviation, sqrt(p (1 - p) / n).
    bound = (expected * (1 - expected) / count).sqrt().sum().item()
    assert (first - expected).abs().sum().item() < 1.2 * bound

    start = int(expected.argmax())
    seconds = torch.tensor([ids[1] for ids in found if ids[0] == start and len(ids) == 2])
    expected = torch.softmax(model(torch.tensor([[10, 11, start]])).logits[0, -1], -1)
    shares = torch.bincount(seconds, minlength=len(expected)) / len(seconds)
    bound = (expected * (1 - expected) / len(seconds)).sqrt().sum().item()
    assert (shares - expected).abs().sum().item() < 1.3 * bound
