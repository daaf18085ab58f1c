"""Did a step change the policy, and if not, why and what to try."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mgrpo.metrics.rows import Row

ALMOST_ALL = 0.9
Values = Mapping[str, float | None]


def changed_policy(values: Values) -> bool | None:
    """Whether a step's update changed the weights; None where the step has had no update to make.

    An update without a row to train on is skipped, and so is one with too large a gradient
    (learner.skip_above_grad_norm) or one that is not finite.
    """
    skipped, grad_norm = values.get("learner/skipped_updates"), values.get("learner/grad_norm")
    if skipped is None and grad_norm is None:
        return None
    return bool(grad_norm) and (skipped or 0.0) < 1.0


def why_nothing_was_learnt(values: Values) -> str:
    """The likeliest reason in a step's metrics, and what to try."""

    def share(name: str) -> float:
        return values.get(name) or 0.0

    if share("learner/nonfinite_updates"):
        return (
            "The loss or its gradient is not finite (NaN or infinite); a warning names its origin."
        )
    failed = share("rewards/timeout") + share("rewards/error")
    if failed >= ALMOST_ALL:
        return (
            f"The checks failed on {failed:.0%} of the completions. See the details in rollouts/, "
            "fix the check, or raise rewards.deadline_s."
        )
    if share("layer1/truncated_fraction") >= ALMOST_ALL:
        return (
            f"{share('layer1/truncated_fraction'):.0%} of the first attempts ran out of tokens "
            "before they ended. Raise layers.0.max_completion_tokens, or end them earlier "
            "(layers.0.stop, model.stop_tokens)."
        )
    if share("rewards/unparsable") >= ALMOST_ALL:
        return (
            f"The checks found no answer in {share('rewards/unparsable'):.0%} of the completions. "
            "Say in layers.N.system_prompt how to write it (math_answer reads \\boxed{...})."
        )
    rewards = f"In all groups the rewards are equal (mean {share('layer1/reward_mean'):.3g})"
    if share("layer1/zero_variance_fraction") < 1.0:
        return (
            "No completion was selected to train. Look at layers.N.select and at why in "
            "rollouts/ (not_selected_because)."
        )
    if share("layer1/accuracy") >= ALMOST_ALL:
        return f"{rewards}: the problems are too easy. Use harder ones (data.train)."
    return (
        f"{rewards}, and rewards are compared within a group. Use easier problems (data.train) or "
        "a stronger model (model.path), a check that gives parts of the reward for near answers, "
        "or a larger layers.0.group_size."
    )


def learning_sentence(metrics: Sequence[Row]) -> str:
    """How many steps changed the policy, where not all did; "" where all did."""
    changes = [(row, changed) for row in metrics if (changed := changed_policy(row)) is not None]
    without = [row for row, changed in changes if not changed]
    if not without:
        return ""
    num_changed = len(changes) - len(without)
    sentence = f"{num_changed} of {len(changes)} steps changed the policy."
    return f"{sentence} {why_nothing_was_learnt(without[-1])}" if not num_changed else sentence
