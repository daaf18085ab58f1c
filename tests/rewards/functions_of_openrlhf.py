"""Reward functions as OpenRLHF takes them; they need torch, whose import takes seconds."""

import torch

from tests.rewards.functions_from_elsewhere import final_answer


def reward_func(queries, prompts, labels):
    answers = [query[len(prompt) :] for query, prompt in zip(queries, prompts, strict=True)]
    rewards = torch.tensor(
        [float(final_answer(text) == label) for text, label in zip(answers, labels, strict=True)]
    )
    lengths = torch.tensor([len(text) for text in answers])
    return {"rewards": rewards, "scores": rewards, "extra_logs": {"length": lengths}}


def tensor_reward(queries, prompts, labels, **kwargs):
    return (
        torch.tensor([float(label in query) for query, label in zip(queries, labels, strict=True)])
        * 2
    )
