"""The candidate's warm start: right work alone, stopped while the policy still errs.

1. *First attempts.* The network learns right work for the problem. Every `CHECK_EVERY` steps its
   sampled attempts at other problems are graded; the stage ends when each family is right often
   enough.
2. *Corrections.* What is corrected are attempts that the network itself sampled, right and wrong as
   they came; what it learns behind them is, again, right work for the problem. Attempts are sampled
   anew after every check. The stage ends when second turns are as often right as is asked. Of the
   first stage it has the saved policy alone, so that it can be made again by itself.

A family that is right often enough is drawn less often, so that it keeps what it has learned while
the other one catches up: not at all would mean that it is forgotten.

So no mistake is taught: those that it makes are of steps that it has not learned well, in both
turns. The same seed gives the same weights on the same machine with one thread.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from mgrpo.models.catalog import HALF_RIGHT, MADE_BY, is_complete
from scripts.default_policy.right_work.measure import attempts_at, corrections_of
from scripts.default_policy.right_work.problems import (
    NUM_CHECKED,
    for_stopping,
    for_training,
    pools_of,
)
from scripts.default_policy.right_work.turns import SENTENCES, Attempt, Turns, tokenizer_texts
from scripts.default_policy.tiny_tokenizer import train_tokenizer
from scripts.default_policy.warm_start import IGNORED, padded, save, untrained_model
from scripts.default_policy.warm_start_corpus import Example

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

FIRST_RATE, SECOND_RATE = 2e-3, 1e-3
"""Learning rates of the stages."""
WARM_UP_STEPS = 50
CONSTANT_STEPS = 1500
"""Steps at the whole rate; then it falls as one over the root of the step."""
WEIGHT_DECAY = 0.01
MAX_GRAD_NORM = 1.0
BATCH_SIZE = 32
CHECK_EVERY = 50
SECOND_CHECK_EVERY = 100
"""In the second stage, where a check samples second turns and new attempts, too."""
NUM_TRAINING = 6000
NUM_TOKENIZER_PROBLEMS = 2000
NUM_ATTEMPTS = 256
"""Own attempts of each family that are sampled for corrections after each check."""
FIRST_RIGHT = 0.50
"""Share of right first attempts that is often enough."""
KEPT_RIGHT = 0.9
"""What is asked of first attempts in the second stage, relative to the first one."""
SECOND_RIGHT = 0.80
"""Right second turns, as a share of right first attempts, that is often enough."""
REHEARSED = 0.2
"""How often a turn that is right often enough is drawn, relative to one that is not yet."""
MAX_STEPS = 6000
"""Of a stage."""


class Rates(NamedTuple):
    """A family's right completions, as shares: first attempts, and their corrections."""

    first: float
    second: float


Weights = dict[str, float]
"""How often a family is drawn, relative to others."""


def weight(enough: bool) -> float:
    return REHEARSED if enough else 1.0


class Maker:
    """The network, its optimizer, and the problems: one warm start."""

    def __init__(self, *, seed: int, report: Callable[[str], None]) -> None:
        self.report, self.seed = report, seed
        self.training = pools_of(for_training(NUM_TRAINING, NUM_CHECKED))
        self.checked = pools_of(for_stopping(NUM_CHECKED))
        texts = [
            text
            for pool in self.training.values()
            for text in tokenizer_texts(pool[:NUM_TOKENIZER_PROBLEMS])
        ]
        self.tokenizer = train_tokenizer(texts, SENTENCES)
        self.turns = Turns(self.tokenizer, self.tokenizer.eos_token_id)
        self.model: LlamaForCausalLM = untrained_model(self.tokenizer, seed=seed)
        self.begin(FIRST_RATE, seed, CHECK_EVERY)

    def begin(self, learning_rate: float, seed: int, check_every: int) -> None:
        """A stage: nothing but the policy comes from the one before."""
        self.rng = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, rate_at)
        self.check_every = check_every
        self.step = 0
        self.loss = 0.0

    def learn_first_attempts(self, right: float) -> None:
        """Stage 1: until this share of sampled first attempts is right in each family."""
        first = dict.fromkeys(self.training, 1.0)
        while any(drawn == 1.0 for drawn in first.values()):
            self.learn(partial(self.example, first, {}, {}))
            rates = self.check(with_second=False)
            first = {name: weight(rate.first >= right) for name, rate in rates.items()}

    def learn_corrections(self, first_right: float, second_right: float) -> None:
        """Stage 2: until second turns are right this often, relative to first attempts."""
        self.begin(SECOND_RATE, self.seed + 1, SECOND_CHECK_EVERY)
        while True:
            rates = self.check(with_second=True)
            first = {name: weight(rate.first >= first_right) for name, rate in rates.items()}
            second = {
                name: weight(rate.second >= second_right * rate.first)
                for name, rate in rates.items()
            }
            if all(drawn < 1.0 for drawn in [*first.values(), *second.values()]):
                return
            self.learn(partial(self.example, first, second, self.own_attempts()))

    def example(
        self, first: Weights, second: Weights, own: Mapping[str, Sequence[Attempt]]
    ) -> Example:
        """A first attempt of one of the families, or a correction of one of the own attempts."""
        names = [*first, *second]
        (at,) = self.rng.choices(range(len(names)), [*first.values(), *second.values()])
        if at < len(first):
            return self.turns.first(self.rng.choice(self.training[names[at]]), self.rng)
        return self.turns.second(self.rng.choice(own[names[at]]), self.rng)

    def own_attempts(self) -> dict[str, list[Attempt]]:
        """Attempts at training problems, sampled from the network as it is."""
        self.model.eval()
        return {
            name: [
                row[0]
                for row in attempts_at(
                    self.model,
                    self.turns,
                    self.rng.sample(problems, NUM_ATTEMPTS),
                    num_samples=1,
                    generator=self.generator,
                )
            ]
            for name, problems in self.training.items()
        }

    def learn(self, example: Callable[[], Example]) -> None:
        """Optimizer steps until the next check, on batches of examples of similar length."""
        if self.step >= MAX_STEPS:
            raise RuntimeError(
                f"{self.step} steps, and the policy is not yet as often right as is asked: raise "
                "MAX_STEPS, or ask for less."
            )
        self.model.train()
        drawn = [example() for _ in range(BATCH_SIZE * self.check_every)]
        drawn.sort(key=lambda one: len(one.prompt_ids) + len(one.completion_ids))
        starts = list(range(0, len(drawn), BATCH_SIZE))
        self.rng.shuffle(starts)
        losses = []
        for start in starts:
            loss = completion_loss(
                self.model, drawn[start : start + BATCH_SIZE], self.tokenizer.pad_token_id
            )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRAD_NORM)
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()
            losses.append(loss.item())
        self.step += self.check_every
        self.loss = sum(losses) / len(losses)

    def check(self, *, with_second: bool) -> dict[str, Rates]:
        """How often sampled attempts, and corrections of them, are right at other problems."""
        self.model.eval()
        rates = {}
        for name, problems in self.checked.items():
            rows = attempts_at(
                self.model, self.turns, problems, num_samples=1, generator=self.generator
            )
            attempts = [row[0] for row in rows]
            corrections = (
                corrections_of(
                    self.model, self.turns, attempts, rng=self.rng, generator=self.generator
                )
                if with_second
                else []
            )
            rates[name] = Rates(right_share(attempts), right_share(corrections))
        shown = ", ".join(
            f"{name} {rate.first:.3f}" + (f" then {rate.second:.3f}" if with_second else "")
            for name, rate in rates.items()
        )
        cpu_s = time.process_time()
        self.report(f"step {self.step}: loss {self.loss:.4f}, right {shown}, {cpu_s:.0f} CPU s")
        return rates


def rate_at(step: int) -> float:
    """The learning rate at a step, as a share of the whole."""
    return min(1.0, (step + 1) / WARM_UP_STEPS, (CONSTANT_STEPS / max(1, step)) ** 0.5)


def right_share(attempts: Sequence[Attempt]) -> float:
    return sum(attempt.is_right for attempt in attempts) / max(1, len(attempts))


def completion_loss(model: LlamaForCausalLM, batch: list[Example], pad_id: int) -> Tensor:
    """Mean cross entropy over the completion tokens of the batch, in nats.

    Only positions before a completion's token go through the output layer.
    """
    input_ids_BT, labels_BT = padded(batch, pad_id)
    # Padding stands on the right, where causal attention never looks: no mask is needed.
    hidden_BTH = model.model(input_ids=input_ids_BT, use_cache=False).last_hidden_state
    targets_BT = labels_BT[:, 1:]
    is_target_BT = targets_BT != IGNORED
    logits_NV = model.lm_head(hidden_BTH[:, :-1][is_target_BT])
    return torch.nn.functional.cross_entropy(logits_NV, targets_BT[is_target_BT])


def load_model(folder: Path) -> LlamaForCausalLM:
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)


def make(
    output_dir: Path,
    work_dir: Path,
    *,
    seed: int = 0,
    first_right: float = FIRST_RIGHT,
    second_right: float = SECOND_RIGHT,
    report: Callable[[str], None] = print,
) -> None:
    """Train the candidate and save it in Hugging Face form.

    The policy between the stages is kept in `work_dir`; where there is one, it is gone on from.
    """
    torch.set_num_threads(1)
    maker = Maker(seed=seed, report=report)
    between = work_dir / f"first-{seed}-{first_right}"
    if is_complete(between):
        report(f"going on from {between}")
        maker.model.load_state_dict(load_model(between).state_dict())
    else:
        maker.learn_first_attempts(first_right)
        save(maker.model, maker.tokenizer, between, seed=seed, steps=maker.step)
    maker.learn_corrections(KEPT_RIGHT * first_right, second_right)
    save(maker.model, maker.tokenizer, output_dir, seed=seed, steps=maker.step)
    origin = {
        "made_by": MADE_BY[HALF_RIGHT],
        "seed": seed,
        "first_right": first_right,
        "second_right": second_right,
    }
    (output_dir / "origin.json").write_text(json.dumps(origin, indent=2) + "\n")
    report(f"Saved to {output_dir}")
