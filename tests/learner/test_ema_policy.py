"""The running average as one rank holds it. Under real engines: test_deepspeed_learner."""

import copy

import torch
from torch import nn

from learner.ema_policy import EmaPolicy
from learner.plugin import EmaSchedule


def test_an_average_leaves_its_device_whole_with_what_bfloat16_cannot_hold():
    policy = nn.Linear(2, 3).bfloat16()
    model = copy.deepcopy(policy)
    schedule = EmaSchedule(decay=0.9, every_updates=1)
    ema = EmaPolicy(schedule, policy=policy, model=model)
    before = [value.clone() for _, value in ema._values()]
    assert {value.dtype for value in before} == {torch.float32}
    ema.to(torch.device("cpu"))
    for (_, value), expected in zip(ema._values(), before, strict=True):
        assert torch.equal(value, expected)
    ema.to(torch.device("meta"))
    held = [*(value for _, value in ema._values()), *model.parameters()]
    assert len(held) == 4 and {value.device.type for value in held} == {"meta"}
