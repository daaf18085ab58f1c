"""The completions that every case trains on: made once, kept in `inputs.json`.

    python -m tests.same_numbers.inputs      # writes inputs.json anew; all results change with it

Random tokens; log-probabilities are the tiny policy's own with noise, as an engine's are: a few
are far off, so that importance weights are cut.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM

from tests.same_numbers.adapter import save_models
from tests.same_numbers.worker import INPUTS, compact

NUM_PROBLEMS, NUM_ATTEMPTS, NUM_CORRECTIONS, NUM_THIRD = 3, 4, 3, 2
INJECTED = 63  # token that stands for what was put into a completion; nothing samples it
Row = dict[str, Any]


class Maker:
    """Draws rows for a step."""

    def __init__(self, policy: LlamaForCausalLM, seed: int) -> None:
        self.policy, self.random = policy, random.Random(seed)

    def draw(self, count: int) -> list[int]:
        return [self.random.randrange(1, 58) for _ in range(count)]

    @torch.no_grad()
    def logprobs(self, prompt: list[int], tokens: list[int]) -> list[float]:
        """[len(tokens)] nats, as an engine might have them."""
        logits = self.policy(torch.tensor([prompt + tokens])).logits[0].log_softmax(-1)
        exact = [float(logits[len(prompt) - 1 + n, token]) for n, token in enumerate(tokens)]
        noise = [self.random.gauss(0, 1.2 if self.random.random() < 0.1 else 0.1) for _ in exact]
        return [round(min(-1e-3, own + off), 4) for own, off in zip(exact, noise, strict=True)]

    def row(self, problem: int, path: Sequence[int], prompt: list[int], reward: Row) -> Row:
        tokens = self.draw(self.random.randrange(3, 9))
        cut = self.random.randrange(1, len(tokens))
        is_cut_off = reward["status"] == "unparsable" and self.random.random() < 0.5
        return {
            "problem": problem,
            "path": list(path),
            "prompt": prompt,
            "tokens": tokens,
            "logprobs": self.logprobs(prompt, tokens),
            "finish": "length" if is_cut_off else "stop",
            "text": self.random.choice(["12 and 7 are 19", "12 more", "7", "no 127"]),
            "reward": reward,
            "spans": {
                "steps": [[0, cut], [cut, len(tokens)]],
                "analysis": [[0, cut]],
                "answer": [[len(tokens) - 1, len(tokens)]] if cut > 1 else [],
            },
        }

    def reward(self) -> Row:
        """Mostly 0 or 1, with a part for the form sometimes; some have no answer, and the check
        of a few failed."""
        kind = self.random.random()
        if kind < 0.06:
            status = self.random.choice(["timeout", "error"])
            return {"value": 0.0, "status": status, "correct": False}
        if kind < 0.16:
            return {"value": 0.0, "status": "unparsable", "correct": False}
        is_right = self.random.random() < 0.45
        form = self.random.choice([0.0, 0.0, 0.0, 0.2])
        return {"value": float(is_right) + form, "status": "scored", "correct": is_right}

    def step(self) -> list[Row]:
        """Attempts, their corrections, and for the first problem corrections of some of these.

        The attempts at the first two problems are right and wrong, those at the last all wrong.
        """
        rows = []
        for problem in range(NUM_PROBLEMS):
            question = self.draw(4 + problem)
            attempts = [
                self.row(problem, [n], question, self.attempt_reward(problem, n))
                for n in range(NUM_ATTEMPTS)
            ]
            for attempt in attempts:
                rows.append(attempt)
                rows += self.corrections(attempt, NUM_CORRECTIONS, third=problem == 0)
        return rows

    def attempt_reward(self, problem: int, number: int) -> Row:
        reward = self.reward()
        if problem == NUM_PROBLEMS - 1:
            return {"value": 0.0, "status": "scored", "correct": False}
        if number < 2:
            return {"value": float(number), "status": "scored", "correct": number == 1}
        return reward

    def corrections(self, parent: Row, count: int, *, third: bool = False) -> list[Row]:
        prompt = parent["prompt"] + parent["tokens"] + self.draw(2)
        rows = []
        for number in range(count):
            path = [*parent["path"], number]
            row = self.row(parent["problem"], path, prompt, self.reward())
            rows.append(row)
            if third and number < NUM_THIRD:
                rows += self.corrections(row, NUM_THIRD)
        return rows

    def pooled(self) -> list[Row]:
        """Wrong attempts of an earlier step, each in a place of its own, and their corrections."""
        rows = []
        for place in range(NUM_PROBLEMS):
            wrong = {"value": 0.0, "status": "scored", "correct": False}
            attempt = self.row(place, [0], self.draw(5), wrong) | {"augmented": "error pool"}
            rows += [attempt, *self.corrections(attempt, NUM_ATTEMPTS)]
        return rows

    def repaired(self, rows: Sequence[Row]) -> list[Row]:
        """Wrong attempts as a repair leaves them: right, two tokens of them put in."""
        found = []
        for row in rows:
            if len(row["path"]) > 1 or row["path"][0] < 2 or row["problem"] == 1:
                continue
            mask = [True] * (len(row["tokens"]) - 2) + [False, False]
            found.append(
                row
                | {
                    "tokens": [*row["tokens"][:-2], INJECTED, INJECTED],
                    "logprobs": [*row["logprobs"][:-2], 0.0, 0.0],
                    "sampled": mask,
                    "trained": mask,
                    "augmented": "answer_injected",
                    "reward": {"value": 1.0, "status": "scored", "correct": True},
                }
            )
        return found

    def experts(self, rows: Sequence[Row]) -> list[Row]:
        """A solution of the data beside the attempts at the last problem."""
        row = next(row for row in rows if row["problem"] == NUM_PROBLEMS - 1)
        right = {"value": 1.0, "status": "scored", "correct": True}
        expert = self.row(row["problem"], [NUM_ATTEMPTS], row["prompt"], right)
        count = len(expert["tokens"])
        unsampled = {"logprobs": [0.0] * count, "sampled": [False] * count, "spans": {}}
        return [expert | unsampled | {"augmented": "expert"}]

    def continuations(self, rows: Sequence[Row]) -> None:
        """What the policy says after the contexts of each attempt: two integrated answers."""
        for row in rows:
            if len(row["path"]) == 1:
                row["continuations"] = [[self.draw(3)], [self.draw(2), self.draw(4)]]

    def problem(self, number: int) -> Row:
        return {
            "name": f"problem {number}",
            "domain": ("sums", "legs", "sums")[number],
            "entities": [["12", "7"], ["12"], []][number],
            "greedy_logprob_mean": -4.25 - 0.05 * number,
            "contexts": {
                "opening": [60, *self.draw(2)],
                "separator": [61],
                "bridge": self.draw(1),
                "closing": [62],
                "max_answer_tokens": 5,
                "integrated": [self.draw(4), self.draw(6)],
            },
        }


def pairs_of(rows: Sequence[Row]) -> list[Row]:
    """Six pairs of attempts at one problem."""
    attempts = [row for row in rows if len(row["path"]) == 1]
    by_problem = [
        [row for row in attempts if row["problem"] == place] for place in range(NUM_PROBLEMS)
    ]
    kinds = ("penalty", "consistency", "reflection")
    return [
        {"kind": kinds[number % 3], "chosen": group[first], "rejected": group[first + 1]}
        for first in (0, 2)
        for number, group in enumerate(by_problem)
    ]


def make_inputs() -> Row:
    with tempfile.TemporaryDirectory() as folder:
        save_models(Path(folder))
        policy = LlamaForCausalLM.from_pretrained(Path(folder) / "policy")
    maker = Maker(policy, seed=12)
    problems = [maker.problem(number) for number in range(NUM_PROBLEMS)]
    first, second = maker.step(), maker.step()
    maker.continuations(second)
    other = [row for row in maker.step() if len(row["path"]) == 2 and row["problem"] > 0]
    replayed = [row | {"advantage": 0.25 * n} for n, row in enumerate(other[::4], start=1)]
    return {
        "problems": problems,
        "sets": {
            "first": first,
            "second": second,
            "pooled": maker.pooled(),
            "repaired": maker.repaired(first),
            "repaired again": maker.repaired(second),
            "experts": maker.experts(first),
            "experts again": maker.experts(second),
            "replayed": replayed,
        },
        "pairs": pairs_of(maker.step()),
    }


def write_inputs() -> None:
    inputs = make_inputs()
    lines = [f'"problems": {compact(inputs["problems"])}'.strip()]
    for name, rows in inputs["sets"].items():
        lines.append(f'"{name}": [\n' + ",\n".join(compact(row).strip() for row in rows) + "\n]")
    body = "{\n" + lines[0] + ',\n"sets": {\n' + ",\n".join(lines[1:]) + "\n},\n"
    pairs = ",\n".join(compact(pair).strip() for pair in inputs["pairs"])
    INPUTS.write_text(body + f'"pairs": [\n{pairs}\n]\n}}\n', encoding="utf-8")


if __name__ == "__main__":
    write_inputs()
