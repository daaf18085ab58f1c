"""How well the learner trains one architecture: against the untouched model, on the CPU."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from learner.hub_weights import HubWeights
from learner.logprobs import PolicyModel
from learner.packing import collate
from learner.policy_loading import load_causal_lm, load_policy
from learner.policy_proofs import prove_policy
from learner.rows import TrainingRow, text
from mgrpo.errors import ModelError

NUM_PROMPT_TOKENS, NUM_TOKENS = 12, 20
"""Of each row that gradients are compared on: longer than the windows of the zoo."""
TEMPERATURE = 0.8


def measure_learner(model_dir: Path) -> dict[str, Any]:
    """What a model of float32 and of bfloat16 does.

    Returns:
        `outcome`: "merged", "padded" or "refused", with `reason`; for a model that trains also the
        largest difference of a log-probability in nats, and of the gradient as a share of it.
    """
    try:
        policy, obstacle = load_and_prove(model_dir, torch.float32)
        load_and_prove(model_dir, torch.bfloat16)
        weights = HubWeights(policy.causal_lm)
    except ModelError as error:
        return {"outcome": "refused", "reason": str(error)}
    rows = three_rows()
    found, gradients = as_trained(policy, rows)
    expected, truths = untouched(model_dir, policy, rows)
    return {
        "outcome": "merged" if policy.merges_prefixes else "padded",
        "reason": obstacle,
        "logits": str(policy.causal_lm.get_output_embeddings().transform),
        "frozen": sum(not one.requires_grad for one in policy.causal_lm.parameters()),
        "tensors": len(weights.tensors),
        "hub_tensors": sum(len(shapes) for shapes in weights.shapes),
        "logprob_difference": float((found - expected).abs().max()),
        "gradient_difference": gradient_difference(gradients, truths),
    }


def load_and_prove(model_dir: Path, dtype: torch.dtype) -> tuple[PolicyModel, str]:
    """A policy as it trains on a GPU, with gradient checkpointing, and why it is padded."""
    said = Said()
    logger = logging.getLogger("learner.policy_loading")
    logger.addHandler(said)
    try:
        policy = load_policy(str(model_dir), dtype=dtype, gradient_checkpointing=True)
        prove_policy(policy, policy, merge_prefixes=True, device="cpu")
    finally:
        logger.removeHandler(said)
    return policy, said.reason


class Said(logging.Handler):
    """Keeps the reason of the warning that rows are padded."""

    reason = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING and isinstance(record.args, tuple):
            self.reason = str(record.args[-1])


def three_rows() -> list[TrainingRow]:
    """Two rows that share a prompt and one that continues the first of them."""
    generator = torch.Generator().manual_seed(1)

    def draw(count: int) -> list[int]:
        return torch.randint(20, 250, (count,), generator=generator).tolist()

    prompt, attempt = draw(NUM_PROMPT_TOKENS), draw(NUM_TOKENS)
    return [
        text(prompt, attempt),
        text(prompt, draw(NUM_TOKENS // 2)),
        text(prompt + attempt, draw(NUM_TOKENS // 2)),
    ]


def coefficients(count: int) -> Tensor:
    """Different for every token, of both signs, as advantages are."""
    return torch.linspace(-1.0, 2.0, count)


def as_trained(policy: PolicyModel, rows: list[TrainingRow]) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probabilities and gradient of one micro-batch with gradient checkpointing."""
    part = collate(rows, merge_prefixes=policy.merges_prefixes)
    logprobs, _ = policy(
        part.input_ids, part.positions, part.target_ids, TEMPERATURE, 7, part.prefix_tree
    )
    (logprobs * coefficients(len(logprobs))).sum().backward()
    return logprobs.detach(), gradients_of(policy.causal_lm, policy)


def untouched(
    model_dir: Path, policy: PolicyModel, rows: list[TrainingRow]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The same of transformers' own model, row by row, from whole logits."""
    model = load_causal_lm(str(model_dir), torch.float32).eval()
    pieces = []
    for row in rows:
        logits = model(input_ids=torch.tensor([row.input_token_ids]), use_cache=False).logits[0]
        logprobs = (logits / TEMPERATURE).log_softmax(dim=-1)
        targets = torch.tensor(row.token_ids)
        pieces.append(logprobs[-len(targets) :].gather(1, targets[:, None])[:, 0])
    whole = torch.cat(pieces)
    (whole * coefficients(len(whole))).sum().backward()
    return whole.detach(), gradients_of(model, policy)


def gradients_of(causal_lm: Any, policy: PolicyModel) -> dict[str, Tensor]:
    """Gradients of the weights that the policy trains, by name."""
    trained = {name for name, one in policy.causal_lm.named_parameters() if one.requires_grad}
    return {
        name: torch.zeros_like(one) if one.grad is None else one.grad
        for name, one in causal_lm.named_parameters()
        if name in trained
    }


def gradient_difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Norm of the difference over the norm of the gradient, the largest over the weights that
    have more than a thousandth of the largest norm."""
    norms = {name: float(one.norm()) for name, one in expected.items()}
    floor = 1e-3 * max(norms.values())
    return max(
        float((found[name] - one).norm()) / norms[name]
        for name, one in expected.items()
        if norms[name] > floor
    )
