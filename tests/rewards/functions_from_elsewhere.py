"""Reward functions as they are written for TRL, verl and OpenRLHF, and some that go wrong."""

import asyncio
import os
import re
import time

BOXED = re.compile(r"\\boxed\{([^{}]*)\}")


def final_answer(text):
    found = BOXED.findall(text)
    return found[-1].strip() if found else None


# TRL, standard prompts


def accuracy(completions, answer, **kwargs):
    """1 for the reference in the last box."""
    return [
        1.0 if final_answer(text) == truth else 0.0
        for text, truth in zip(completions, answer, strict=True)
    ]


def length_penalty(completion_ids, scale=0.01, **kwargs):
    """Less for each token."""
    return [-scale * len(ids) for ids in completion_ids]


def think_format(completions, **kwargs):
    pattern = re.compile(r"^<think>.*</think>.*$", re.DOTALL)
    return [0.5 if pattern.match(text) else 0.0 for text in completions]


def best_of_group(prompts, completions, **kwargs):
    """1 for the shortest answer to its prompt, 0 for the others. TRL gives several prompts."""
    shortest = {}
    for prompt, text in zip(prompts, completions, strict=True):
        shortest[prompt] = min(shortest.get(prompt, len(text)), len(text))
    return [
        float(len(text) == shortest[prompt])
        for prompt, text in zip(prompts, completions, strict=True)
    ]


def only_algebra(completions, answer, task, **kwargs):
    """Of one task among several: None for the rows of others."""
    return [
        float(final_answer(text) == truth) if name == "algebra" else None
        for text, truth, name in zip(completions, answer, task, strict=True)
    ]


def never_scores(completions, **kwargs):
    return [None for _ in completions]


def logs_more(completions, log_extra=None, log_metric=None, **kwargs):
    log_extra("answer_read", [final_answer(text) or "none" for text in completions])
    log_extra("characters", [len(text) for text in completions])
    log_metric("mean_length", sum(map(len, completions)) / len(completions))
    return [0.0] * len(completions)


async def slow_accuracy(prompts, completions, answer, **kwargs):
    await asyncio.sleep(0.05)
    return accuracy(completions, answer)


# TRL, conversational prompts


def chat_accuracy(prompts, completions, ground_truth, **kwargs):
    contents = [completion[0]["content"] for completion in completions]
    asked = [prompt[-1]["content"] for prompt in prompts]
    return [
        float("?" in question and final_answer(text) == truth)
        for question, text, truth in zip(asked, contents, ground_truth, strict=True)
    ]


# verl


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    """A score with what it was made of."""
    read = final_answer(solution_str)
    right = read == ground_truth
    return {"score": 1.0 if right else -1.0, "acc": right, "pred": read or ""}


def by_source(data_source, solution_str, ground_truth, extra_info=None):
    if data_source != "openai/gsm8k":
        raise NotImplementedError(f"no score for {data_source}")
    return float(final_answer(solution_str) == ground_truth) + 0.1 * extra_info["index"]


async def slow_score(solution_str, ground_truth, pause_s=0.0, **kwargs):
    if "wait" in solution_str:
        await asyncio.sleep(60)
    if "block" in solution_str:
        time.sleep(60)
    if "own timeout" in solution_str:
        raise TimeoutError("the server")
    await asyncio.sleep(pause_s)
    return {"score": float(ground_truth in solution_str), "loop": id(asyncio.get_running_loop())}


# Ours


def differ(completions, problem, *, bonus=1.0):
    """Pays what no other of the group says."""
    return [bonus if completions.count(text) == 1 else None for text in completions]


def whole_group(completions, problem):
    """How many it got, and where."""
    return [float(len(completions)) for _ in completions]


def process_of(completions, problem):
    return [float(os.getpid()) for _ in completions]


async def nicely(completion, problem):
    await asyncio.sleep(0.01)
    return completion == problem.answer


# Wrong


def too_few(completions, **kwargs):
    return [1.0] * (len(completions) - 1)


def one_number(completions, **kwargs):
    return 1.0


def one_nan(completions, **kwargs):
    return [float("nan"), *[1.0] * (len(completions) - 1)]


def raises(completions, **kwargs):
    raise KeyError("x")


def on_command(completions, problem):
    if "exit" in completions:
        os._exit(1)
    if "hang" in completions:
        time.sleep(60)
    return [1.0 for _ in completions]


def needs_a_column(completions, difficulty, **kwargs):
    return difficulty


def needs_the_trainer(completions, trainer_state, **kwargs):
    return [trainer_state.global_step for _ in completions]


def nameless_score(data_source, solution_str, ground_truth, extra_info=None):
    return {"acc": 1.0}


def score_with_feedback(data_source, solution_str, ground_truth, extra_info=None):
    """The dict has a text for the policy, as verl's reward managers keep one."""
    right = ground_truth in solution_str
    return {"score": float(right), "feedback": None if right else "Line 3: expected a semicolon."}


def logs_feedback(prompts, completions, log_extra, **kwargs):
    log_extra("feedback", [f"{len(one)} characters" for one in completions])
    return [0.0] * len(completions)
