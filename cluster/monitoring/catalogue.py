"""Every metric of a run: its name in metrics.jsonl, its unit and its meaning.

`docs/metrics.md` is written from this, Ray's gauges take names and descriptions from it, and a
test finds metrics in the code without a row here. The first matching row is used, so a special name
comes before a pattern that also matches it.
"""

from __future__ import annotations

from cluster.monitoring.fault_metrics import PIPELINE
from cluster.monitoring.names import FRACTION, Family, Names
from cluster.monitoring.plugin_metrics import PLUGINS

RUN = (
    Family("step", "steps", "The newest step that was recorded; 0 is the first."),
    Family("wall_s", "s", "Running time of the run, over all resumptions."),
    Family(
        "cost",
        "price",
        "What the run has cost so far, by the price of an hour of its machines.",
        only_when="output.price_per_hour is set",
    ),
    Family(
        "policy_version",
        "updates",
        "Version of the weights that the next step samples with.",
    ),
    Family(
        "trackers/failed_writes",
        "writes",
        "Writes that trackers missed so far; metrics.jsonl has every step.",
        only_when="a tracker missed one",
    ),
)

LAYERS = (
    Family("layer{layer}/domain/{domain}/accuracy", FRACTION, "Right answers, by domain."),
    Family(
        "layer{layer}/reward_term/{term}",
        "reward",
        "Mean of what a term of the reward returned, or of a number that it returned beside it, "
        "over the completions that it scored. Without its weight.",
        only_when="the reward has several terms or numbers",
    ),
    Family(
        "layer{layer}/accuracy",
        FRACTION,
        "Right answers among those that could be checked; of a verify layer, right verdicts.",
    ),
    Family("layer{layer}/reward_mean", "reward", "Mean reward; failed checks are left out."),
    Family("layer{layer}/completions", "completions", "Completions that were sampled."),
    Family("layer{layer}/completion_tokens_mean", "tokens", "Mean length of a completion."),
    Family("layer{layer}/prompt_tokens_mean", "tokens", "Mean length of a completion's prompt."),
    Family(
        "layer{layer}/feedback_fraction",
        FRACTION,
        "Corrections whose prompt has feedback of the attempt's check. Only with `guidance: "
        "{from: check}`.",
    ),
    Family(
        "layer{layer}/feedback_tokens_mean",
        "tokens",
        "Mean length of that feedback, where there is any.",
    ),
    Family("layer{layer}/truncated_fraction", FRACTION, "Completions that ran out of tokens."),
    Family(
        "layer{layer}/zero_variance_fraction",
        FRACTION,
        "Groups whose rewards are all equal: they have no training signal.",
    ),
    Family("layer{layer}/selected_fraction", FRACTION, "Completions that train, of those scored."),
    Family(
        "layer{layer}/advantage_abs_mean",
        "advantage",
        "Mean size of the advantages that train; near 0 there is no training signal.",
    ),
    Family(
        "layer{layer}/saved_fraction",
        FRACTION,
        "Corrections that were not sampled, as the first of their group agreed.",
        only_when="early_stop stopped a group",
    ),
    Family(
        "layer{layer}/aborted_tokens_fraction",
        FRACTION,
        "Sampled tokens of completions that were aborted as too long.",
        only_when="over_sample is above 0",
    ),
    Family(
        "layer{layer}/kept_length_ratio",
        FRACTION,
        "Mean length of what over_sample kept, over that of all it began, the aborted ones as far "
        "as they came. 1: no bias towards short ones, which is at least as large as this says.",
        only_when="over_sample is above 0",
    ),
    Family(
        "layer{layer}/drafted_tokens",
        "tokens",
        "Tokens that were drafted for the layer's completions.",
        only_when="the layer has speculation",
    ),
    Family(
        "layer{layer}/draft_acceptance",
        FRACTION,
        "Drafted tokens that the policy sampled.",
        only_when="the layer has speculation",
    ),
    Family(
        "layer{layer}/tokens_per_decode_step",
        "tokens",
        "Mean tokens that a completion gained in a decode step; 1 without drafts.",
        only_when="the layer has speculation",
    ),
)

VERDICTS = (
    Family(
        "verdict/layer{layer}/precision",
        FRACTION,
        "Wrong attempts among those that verdicts did not accept.",
        only_when="the layer gives verdicts",
    ),
    Family(
        "verdict/layer{layer}/recall",
        FRACTION,
        "Wrong attempts that verdicts did not accept.",
        only_when="the layer gives verdicts",
    ),
    Family(
        "verdict/layer{layer}/accepted_fraction",
        FRACTION,
        "Verdicts that accept their attempt.",
        only_when="the layer gives verdicts",
    ),
    Family(
        "verdict/layer{layer}/unreadable_fraction",
        FRACTION,
        "Verdicts that say neither right nor wrong; their reward is 0.",
        only_when="the layer gives verdicts",
    ),
)

MOVES = (
    ("wrong_to_right", FRACTION, "Pairs from incorrect to correct."),
    ("right_to_wrong", FRACTION, "Pairs from correct to incorrect."),
    ("right_to_right", FRACTION, "Pairs that stayed correct."),
    ("wrong_to_wrong", FRACTION, "Pairs that stayed incorrect."),
    ("wrong_to_right_count", "pairs", "The same, as a number."),
    ("right_to_wrong_count", "pairs", "The same, as a number."),
    ("right_to_right_count", "pairs", "The same, as a number."),
    ("wrong_to_wrong_count", "pairs", "The same, as a number."),
    ("pairs", "pairs", "Pairs of attempt and correction in which both could be checked."),
    ("accuracy_before", FRACTION, "Right attempts among the pairs."),
    ("accuracy_after", FRACTION, "Right corrections among the pairs."),
    ("delta", FRACTION, "Accuracy after minus accuracy before; below 0 corrections do harm."),
    ("copy_fraction", FRACTION, "Corrections with the attempt's own final answer."),
    (
        "copy_fraction_of_wrong",
        FRACTION,
        "Corrections of wrong attempts that repeat the wrong answer.",
    ),
    ("confirmed_fraction", FRACTION, "Right attempts that stayed right."),
    ("repaired_fraction", FRACTION, "Wrong attempts that were corrected."),
    ("truncated_parents_fraction", FRACTION, "Pairs whose attempt ran out of tokens."),
)

TRANSITIONS = tuple(
    Family(f"transition/{{layer_or_all}}/{place}{name}", unit, meaning + addition)
    for place, addition in (("domain/{domain}/", " By domain."), ("", ""))
    for name, unit, meaning in MOVES
)

HELD_OUT = (
    Family("heldout/layer{layer}/accuracy", FRACTION, "Right answers to held-out problems."),
    *(
        Family(f"heldout/transition/layer{{layer}}/{name}", unit, f"{meaning} Held-out problems.")
        for name, unit, meaning in MOVES
    ),
)

REWARDS = (
    Family(
        "rewards/{status}",
        FRACTION,
        "Completions by the outcome of their check: scored, unparsable (a legitimate 0), timeout "
        "or error (both left out of the loss and of their group).",
    ),
)

LEARNER = (
    Family("learner/loss", "loss", "The step's loss, summed over the trained rows."),
    Family("learner/grad_norm", "norm", "Norm of the gradient before it is clipped."),
    Family("learner/learning_rate", "per step", "Learning rate of the update."),
    Family("learner/entropy", "nats per token", "Mean entropy of the policy on trained tokens."),
    Family(
        "learner/kl",
        "nats per token",
        "Divergence from the reference policy, by the recipe's estimator.",
        only_when="the recipe measures it (objective.kl)",
    ),
    Family("learner/clip_fraction", FRACTION, "Trained tokens whose ratio was clipped."),
    Family(
        "learner/optimizer_steps",
        "optimizer steps",
        "Optimizer steps of an update: one for each minibatch with rows to train on, in each pass "
        "over the rollout. Losses and norms are means over them, tokens are of one pass.",
    ),
    Family("learner/tokens", "tokens", "Tokens that carry loss."),
    Family("learner/row_tokens", "tokens", "Tokens of all rows, before shared prefixes merge."),
    Family("learner/input_tokens", "tokens", "Tokens that the model computes."),
    Family(
        "learner/padded_tokens_fraction",
        FRACTION,
        "Padding among the computed tokens.",
        only_when="rows are padded instead of merged into trees",
    ),
    Family(
        "learner/skipped_updates",
        "updates",
        "Optimizer steps that were left out: without a single row to train on, with a gradient "
        "above learner.skip_above_grad_norm, or not finite.",
        is_counted=True,
    ),
    Family(
        "learner/nonfinite_updates",
        "updates",
        "Optimizer steps that were left out because the loss or the gradient was not finite "
        "(learner.max_nonfinite_updates).",
        only_when="there was one",
        is_counted=True,
    ),
    Family(
        "learner/restarts",
        "restarts",
        "Times that lost ranks were replaced, since the command was started.",
    ),
)

MISMATCH = (
    Family(
        "mismatch/logprob_gap_mean",
        "nats",
        "Mean difference between a token's log-probability when it was sampled and the learner's.",
    ),
    Family("mismatch/logprob_gap_p99", "nats", "The same difference, 99th percentile."),
    Family("mismatch/logprob_gap_max", "nats", "The same difference, the largest."),
    Family(
        "mismatch/shifted_completions",
        "completions",
        "Completions whose recorded log-probabilities are not the policy's "
        "(learner.max_logprob_shift).",
        only_when="there was one",
        is_counted=True,
    ),
    Family(
        "mismatch/importance_weight_mean",
        "weight",
        "Mean weight that corrects for the difference; 1 is no correction.",
    ),
    Family("mismatch/importance_capped_fraction", FRACTION, "Tokens whose weight hit the cap."),
)

WEIGHTS = (
    Family("weights/sync_s", "s", "Time of the step's broadcasts, with their verification."),
    Family(
        "weights/sync_gb_per_s",
        "GB/s",
        "Bytes of the weights, counted once, over the time of a broadcast with its verification.",
    ),
    Family(
        "weights/probe_gap_max",
        "nats",
        "Largest difference on the probe prompt between learner and any engine.",
        only_when="weights.verify_probe is on",
    ),
)

TIMES = (
    Family("seconds/layer{layer}", "s", "From a layer's first request to its last answer."),
    Family(
        "seconds/{phase}",
        "s",
        "Time of a step's parts: rollout, update, weights, and step, the whole.",
    ),
    Family(
        "pipeline/staleness_mean",
        "updates",
        "Updates between sampling and training, over the step's completions.",
        only_when="steps are sampled while others train",
    ),
    Family(
        "pipeline/staleness_max",
        "updates",
        "The most of any completion of the step.",
        only_when="steps are sampled while others train",
    ),
    Family(
        "pipeline/waited_s",
        "s",
        "Time in which the step waited for its completions, and for running requests before a "
        "broadcast; seconds/rollout is from their first request to their last answer.",
        only_when="steps are sampled while others train",
    ),
    Family(
        "pipeline/dropped_problems",
        "problems",
        "Problems of the step that were ended because enough others were done.",
        only_when="steps are sampled while others train",
    ),
    Family(
        "pipeline/hidden_update_s",
        "s",
        "Learner time on the step's problems while others were still sampled; seconds/update is "
        "what came after.",
        only_when="a step's problems train while others are sampled",
    ),
    Family(
        "measurements/{measurement}_s",
        "s",
        "Learner time for measurements that plug-ins require.",
        only_when="a plug-in requires measurements",
    ),
    Family(
        "memory/run_gib",
        "GiB",
        "Memory of the driver and the processes that it has started on its machine: all of them in "
        "a run of its own Ray. Without what they share, and without GPU memory.",
    ),
    Family(
        "memory/fullest_gpu_gib",
        "GiB",
        "In use at the end of a step on the fullest GPU of the driver's machine, by whatever "
        "processes; engines hold `engines.gpu_memory_utilization` all the time.",
        only_when="the driver's machine has NVIDIA GPUs",
    ),
    Family(
        "memory/learner_peak_gib",
        "GiB",
        "The most that the tensors of learner rank 0 took on its GPU since the update before.",
        only_when="the learner is on a GPU",
    ),
    Family("tokens/generated", "tokens", "Tokens that the engines sampled.", is_counted=True),
    Family("tokens/per_s", "tokens/s", "Those tokens over the time of the whole step."),
    Family(
        "tokens/sampled_by_plugins",
        "tokens",
        "Extra tokens that plug-ins sampled: greedy answers, answers in context, "
        "guided corrections. Those that train are among tokens/generated too.",
        only_when="the recipe has rollout plug-ins",
        is_counted=True,
    ),
)

FAMILIES = (
    *RUN,
    *LAYERS,
    *VERDICTS,
    *TRANSITIONS,
    *HELD_OUT,
    *REWARDS,
    *LEARNER,
    *MISMATCH,
    *WEIGHTS,
    *TIMES,
    *PIPELINE,
    *PLUGINS,
)

SECTIONS = {
    "The run": RUN,
    "Layers": LAYERS,
    "Verdicts of a verify layer": VERDICTS,
    "From one layer to the next": TRANSITIONS,
    "Held-out problems": HELD_OUT,
    "Rewards": REWARDS,
    "The learner": LEARNER,
    "Engines against learner": MISMATCH,
    "Weights": WEIGHTS,
    "Time": TIMES,
    "Engines and pipeline": PIPELINE,
    "Parts of methods": PLUGINS,
}


def names() -> Names:
    """The naming rule with this catalogue."""
    return Names(FAMILIES)
