"""Verifies at the start that the optimised training computation equals the unmodified model's.

The truth is the untouched model: before its attention is replaced, without gradient
checkpointing, one row at a time. Three things are compared with it, in the type that trains:

- the way from hidden states to logits, logit by logit;
- rows as they train, with shared prefixes or padding, through the engine;
- a second such pass, which must give the same as the first but for the order of sums.

Rows are longer than the longest window of the model's attention, if a row of the run can be. A
window beyond MAX_PROOF_TOKENS is longer than the proof's rows: then its attention must be the
model's own, which a model with a window keeps (`tree_attention.why_not_mergeable`), and merged
rows that outgrow any window are refused where attention is computed.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from learner.logit_transform import LogitTransform, planted_logits
from learner.logprobs import PolicyModel
from learner.nonfinite import is_finite
from learner.packing import collate
from learner.policy_loading import in_training, merge_where_possible
from learner.rows import TrainingRow, text
from learner.tree_attention import longest_row, windows_of
from learner.zero_parts import own_numbers
from mgrpo.errors import MgrpoError, ModelError
from mgrpo.records.token_columns import TokenIds

NUM_HEAD_TOKENS = 8
"""Of the row whose logits are all compared: [tokens, vocabulary] numbers."""
NUM_PROOF_TOKENS = 64
"""Of the longest row, for a model without windows."""
LEAST_PROOF_TOKENS = 4
BEYOND_WINDOW = 16
"""Tokens more than the longest window."""
MAX_PROOF_TOKENS = 4_352
"""Windows of published models are 128 to 4,096 tokens; longer ones are said to be so above."""
NOISE_FACTOR = 3.0
"""What rounding in every layer may make, against what one of the embeddings makes, measured."""
LEAST_BOUND, MOST_BOUND = 1e-5, 1e-3
LEAST_BOUND_16, MOST_BOUND_16 = 1e-3, 0.1
"""Nats, of the mean over a row's tokens: what is allowed is between, by how much the model itself
makes of rounding."""

SAME = 1e-6
"""Nats, of the mean: two passes on a CPU, which hardly ever differ at all."""

Call = Callable[..., Any]


def prove_policy(policy: PolicyModel, call: Call, **settings: Any) -> None:
    """`prove` what the policy computes; whatever goes wrong on the way is the model's fault.

    Raises:
        ModelError: what differs, by how much, and what is allowed; or what went wrong.
    """
    try:
        prove(policy, call, **settings)
    except MgrpoError:
        raise
    except Exception as error:  # an architecture's own code, in a use that it may not know
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        raise ModelError(f"{name_of(policy)} cannot be used by the learner: {reason}") from error


@torch.no_grad()
def prove(
    policy: PolicyModel,
    call: Call,
    *,
    merge_prefixes: bool,
    device: torch.device | str,
    max_row_tokens: int | None = None,
    chunk_tokens: int = 1024,
) -> None:
    """Let the policy merge prefixes where it can, and refuse one that trains another model.

    Args:
        policy: with its own attention still.
        call: what training calls with PolicyModel.forward's arguments, e.g. an engine.
        max_row_tokens: longest row of the run; None: any.
        chunk_tokens: tokens of which logits are held at once.

    Raises:
        ModelError: what differs, by how much, and what is allowed.
    """
    check_weights(policy)
    rows = proof_rows(policy, max_row_tokens)
    with as_loaded(policy):
        check_logits(policy, rows[0].input_token_ids[:NUM_HEAD_TOKENS], device)
        truths = [untouched_logprobs(policy, row, device, chunk_tokens) for row in rows]
        with rounded_embeddings(policy):
            rounded = untouched_logprobs(policy, rows[0], device, chunk_tokens)
    noise = mean_difference(rounded, truths[0])
    is_reordered = torch.device(device).type != "cpu"
    if merge_prefixes:
        merge_where_possible(policy, max_row_tokens)

    def read() -> list[Tensor]:
        microbatch = collate(rows, device, merge_prefixes=policy.merges_prefixes)
        found, _ = microbatch.read_by(call, temperature=1.0, chunk_tokens=chunk_tokens)
        return list(found.split([len(row.token_ids) for row in rows]))

    found = read()
    room = noise if is_reordered else max(SAME, noise / 100)
    check_determinism(policy, found, read(), room=room)
    check_rows(policy, found, truths, bound=proof_bound(policy, noise))


def proof_rows(policy: PolicyModel, max_row_tokens: int | None) -> list[TrainingRow]:
    """Two rows of plain text tokens, one longer than any window, that share their first half."""
    windows = windows_of(policy.causal_lm, max_row_tokens)
    wanted = max([NUM_PROOF_TOKENS, *(size + BEYOND_WINDOW for size in windows)])
    longest = max(longest_row(policy.causal_lm, max_row_tokens), LEAST_PROOF_TOKENS)
    length = int(min(wanted, MAX_PROOF_TOKENS, longest))
    vocabulary = text_vocabulary(policy.causal_lm)
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> list[int]:
        chosen = torch.randint(len(vocabulary), (count,), generator=generator)
        return vocabulary[chosen].tolist()

    first = draw(length)
    second = first[: length // 2] + draw(max(length // 4, 1))
    return [text(row[:1], row[1:]) for row in (first, second)]


def text_vocabulary(causal_lm: Any) -> Tensor:
    """[W] ids that stand for text: not for an image or a sound, which come with their own input."""
    config = causal_lm.config.get_text_config(decoder=True)
    settings = {**config.to_dict(), **causal_lm.config.to_dict()}
    sizes = [
        causal_lm.get_input_embeddings().num_embeddings,
        getattr(config, "vocab_size", None),
        getattr(config, "vocab_size_per_layer_input", None),
    ]
    is_text = torch.ones(min(size for size in sizes if size), dtype=torch.bool)
    for name, value in settings.items():
        is_token = name.endswith(("token_id", "token_index")) and isinstance(value, int)
        if is_token and 0 <= value < len(is_text):
            is_text[value] = False
    return is_text.nonzero()[:, 0]


@contextmanager
def as_loaded(policy: PolicyModel) -> Iterator[None]:
    """No module in training mode: gradient checkpointing is off."""
    training = in_training(policy)
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def hooked(module: nn.Module, hook: Callable[..., object]) -> Iterator[None]:
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def rounded_embeddings(policy: PolicyModel) -> Any:
    """Every embedding off by one unit of its type's last place, up and down in turns."""

    def disturb(_module: object, _inputs: object, output: Tensor) -> Tensor:
        signs = torch.ones_like(output)
        signs[..., ::2] = -1
        return output * (1 + torch.finfo(output.dtype).eps * signs)

    return hooked(policy.causal_lm.get_input_embeddings(), disturb)


def whole_forward(
    policy: PolicyModel, tokens: Tensor, *, last_logits_only: bool
) -> tuple[Tensor, Tensor]:
    """The model's own forward of [T] tokens.

    Returns:
        [T, D] states of the decoder that it calls, and [T or 1, V'] logits.

    Raises:
        ModelError: it does not call the decoder that trains.
    """
    causal_lm = policy.causal_lm
    seen: list[Tensor] = []

    def keep(_module: object, _inputs: object, output: Any) -> None:
        seen.append(output[0])

    options = {}
    if last_logits_only and "logits_to_keep" in inspect.signature(causal_lm.forward).parameters:
        options["logits_to_keep"] = 1
    with hooked(policy.decoder, keep):
        output = causal_lm(input_ids=tokens[None], use_cache=False, **options)
    if len(seen) != 1 or seen[0].shape[:2] != (1, len(tokens)):
        raise ModelError(
            f"{name_of(policy)} reads text in a way that the learner does not know: its forward "
            "calls the decoder other than once for all tokens."
        )
    return seen[0][0], output.logits[0]


def untouched_logprobs(
    policy: PolicyModel, row: TrainingRow, device: torch.device | str, chunk_tokens: int
) -> Tensor:
    """[n] log-probabilities of a row's tokens, of the model's own states."""
    tokens = torch.tensor(row.input_token_ids, dtype=torch.int64, device=device)
    states, _ = whole_forward(policy, tokens, last_logits_only=True)
    targets = torch.tensor(row.token_ids, dtype=torch.int64, device=device)
    head = policy.causal_lm.get_output_embeddings()
    logprobs, _ = head(states[-len(targets) :], targets, 1.0, chunk_tokens)
    return logprobs


def check_weights(policy: PolicyModel) -> None:
    """Refuse weights that are not finite. Of sharded ones (ZeRO-3) a rank sees its part.

    Raises:
        ModelError: with their names.
    """
    weights = {name: own_numbers(one) for name, one in policy.named_parameters()}
    broken = [name for name, weight in weights.items() if not is_finite(weight)]
    if broken:
        raise ModelError(
            f"{len(broken)} of {len(weights)} weights of {name_of(policy)} are not finite "
            f"({', '.join(broken[:3])}): the file is damaged, or was saved by a training that "
            "failed."
        )


def check_logits(policy: PolicyModel, token_ids: TokenIds, device: torch.device | str) -> None:
    """Refuse a model that makes other logits of its decoder's states than the learner does.

    Raises:
        ModelError: what the configuration says of its logits, and that the model does otherwise.
    """
    head = policy.causal_lm.get_output_embeddings()
    tokens = torch.tensor(token_ids, dtype=torch.int64, device=device)
    states, logits = whole_forward(policy, tokens, last_logits_only=False)
    ours = head(states)
    ours = head.transform.apply_(ours.to(torch.promote_types(ours.dtype, torch.float32)))
    size = policy.causal_lm.get_input_embeddings().num_embeddings
    planted = planted_logits(ours.shape[-1], device)

    def plant(_module: object, _inputs: object, output: Tensor) -> Tensor:
        return planted.expand(output.shape).clone()

    with hooked(head, plant):
        _, bent = whole_forward(policy, tokens, last_logits_only=False)
    # What is applied before the output layer (MiniCPM 3) cannot be seen in planted logits.
    expected = [
        transform.apply_(planted.clone())
        for transform in (head.transform, LogitTransform(cap=head.transform.cap))
    ]
    is_known = any(is_close(bent, one.expand(ours.shape), torch.float32) for one in expected)
    if not (is_known and is_close(logits, ours, logits.dtype)):
        raise ModelError(
            f"{name_of(policy)} changes its logits after the output layer in a way that the "
            f"learner does not know (its configuration says: {head.transform}; {size} tokens, "
            f"{logits.shape[-1]} logits). It would train another distribution than engines sample."
        )


def is_close(found: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Equal but for rounding: a few units of the last place of the largest logit."""
    if found.shape != expected.shape:
        return False
    room = 8 * torch.finfo(dtype).eps * float(expected.abs().max())
    # Written so that NaN is refused, too.
    return bool(((found - expected).abs() <= room).all())


def check_determinism(
    policy: PolicyModel, first: Sequence[Tensor], second: Sequence[Tensor], *, room: float
) -> None:
    """Refuse a model that is random as it trains.

    Args:
        room: nats that are allowed; sums on a GPU, and on a CPU's threads, may come in another
            order.

    Raises:
        ModelError: by how much two passes differ.
    """
    difference = largest_difference(first, second)
    if not difference <= room:
        raise ModelError(
            f"{name_of(policy)} is random as it trains: two passes of the same rows differ by "
            f"{difference:.3g} nats. Something like dropout stays on; set it to 0 in config.json."
        )


def check_rows(
    policy: PolicyModel, found: Sequence[Tensor], truths: Sequence[Tensor], *, bound: float
) -> None:
    """Refuse a model that reads rows together otherwise than one by one.

    Raises:
        ModelError: by how much, and what is allowed.
    """
    difference = largest_difference(found, truths)
    if difference <= bound:
        return
    how = "that share their prefixes" if policy.merges_prefixes else "padded to one length"
    advice = " Set learner.merge_prefixes=false." if policy.merges_prefixes else ""
    raise ModelError(
        f"{name_of(policy)} gives other log-probabilities to rows {how} than to each alone: they "
        f"differ by {difference:.3g} nats on average, and its rounding explains {bound:.3g}."
        f"{advice}"
    )


def largest_difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest row's mean difference; infinite where a number is not finite."""
    means = [mean_difference(one, two) for one, two in zip(found, expected, strict=True)]
    return max(value if math.isfinite(value) else math.inf for value in means)


def mean_difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().mean())


def proof_bound(policy: PolicyModel, noise: float) -> float:
    """Nats: a multiple of what one rounding of the embeddings makes, within bounds by type."""
    is_half = policy.causal_lm.dtype.itemsize == 2
    least, most = (LEAST_BOUND_16, MOST_BOUND_16) if is_half else (LEAST_BOUND, MOST_BOUND)
    return min(max(NOISE_FACTOR * noise, least), most)


def name_of(policy: PolicyModel) -> str:
    return type(policy.causal_lm).__name__
