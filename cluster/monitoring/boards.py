"""The dashboards, in the order of their list: training, rollouts, rewards, weights."""

from __future__ import annotations

from cluster.monitoring.engine_boards import FAULTS, PIPELINE
from cluster.monitoring.panels import Board, Metric, Panel, Query, chart, lines, share

LAYER = "layer {{layer}}"
KL = "the recipe measures a divergence (objective.kl)"
HELD_OUT = "the recipe has held-out problems (data.heldout)"

TRAINING = Board(
    "mgrpo-training",
    "MGRPO training",
    "Progress and health of the policy.",
    (
        share(
            "Accuracy by layer",
            "Right answers to the step's problems. Layer 1 is the first attempt.",
            ("layer{layer}/accuracy", LAYER),
        ),
        share(
            "Accuracy on held-out problems",
            "As evaluated before, during and after training.",
            ("heldout/layer{layer}/accuracy", LAYER),
            only_when=HELD_OUT,
        ),
        chart("Step", "The newest step that was recorded.", "short", ("step", "step")),
        chart(
            "Gradient norm",
            "Before clipping. A jump that stays is a reason to look at the learning rate.",
            "short",
            ("learner/grad_norm", "norm"),
            is_logarithmic=True,
        ),
        chart(
            "Entropy",
            "Nats per token. Near 0 the policy always samples the same completion and stops "
            "learning.",
            "short",
            ("learner/entropy", "entropy"),
        ),
        share(
            "Clipped tokens",
            "Trained tokens whose ratio was clipped; 0 where a rollout is updated on once.",
            ("learner/clip_fraction", "clipped"),
        ),
        chart("Loss", "Not comparable between recipes.", "short", ("learner/loss", "loss")),
        chart(
            "Learning rate",
            "After warm-up, by the schedule.",
            "sci",
            ("learner/learning_rate", "rate"),
        ),
        chart(
            "Divergence from the reference",
            "Nats per token.",
            "short",
            ("learner/kl", "KL"),
            only_when=KL,
        ),
    ),
)

ROLLOUTS = Board(
    "mgrpo-rollouts",
    "MGRPO rollouts by layer",
    "Completions of each layer, and transitions from attempt to correction.",
    (
        share(
            "Corrected and broken attempts",
            "Of all pairs of attempt and correction.",
            ("transition/{layer_or_all}/wrong_to_right", "wrong → right, layer {{layer}}"),
            ("transition/{layer_or_all}/right_to_wrong", "right → wrong, layer {{layer}}"),
        ),
        share(
            "Gain of a correction",
            "Accuracy after minus accuracy before. Below 0 corrections do harm.",
            ("transition/{layer_or_all}/delta", LAYER),
        ),
        share(
            "Copied answers",
            "Corrections with the attempt's own final answer; and of wrong attempts only.",
            ("transition/{layer_or_all}/copy_fraction", "all, layer {{layer}}"),
            ("transition/{layer_or_all}/copy_fraction_of_wrong", "of wrong, layer {{layer}}"),
        ),
        share(
            "Repaired and confirmed",
            "Wrong attempts that were corrected; right attempts that stayed right.",
            ("transition/{layer_or_all}/repaired_fraction", "repaired, layer {{layer}}"),
            ("transition/{layer_or_all}/confirmed_fraction", "confirmed, layer {{layer}}"),
        ),
        share(
            "Verdicts on attempts",
            "Of a verify layer: how many are right, and how well they find wrong attempts.",
            ("verdict/layer{layer}/precision", "precision, layer {{layer}}"),
            ("verdict/layer{layer}/recall", "recall, layer {{layer}}"),
            ("verdict/layer{layer}/accepted_fraction", "accepted, layer {{layer}}"),
            ("verdict/layer{layer}/unreadable_fraction", "unreadable, layer {{layer}}"),
        ),
        chart(
            "Length of a completion",
            "Mean tokens.",
            "short",
            ("layer{layer}/completion_tokens_mean", LAYER),
        ),
        share(
            "Completions that ran out of tokens",
            "Above a few percent, raise max_completion_tokens of the layer.",
            ("layer{layer}/truncated_fraction", LAYER),
        ),
        chart(
            "Completions a step",
            "As sampled.",
            "short",
            ("layer{layer}/completions", LAYER),
        ),
        share(
            "Accuracy by domain",
            "Of each layer.",
            ("layer{layer}/domain/{domain}/accuracy", "layer {{layer}} {{domain}}"),
            only_when="the problems are of several domains",
        ),
    ),
)

REWARDS = Board(
    "mgrpo-rewards",
    "MGRPO rewards",
    "Reliability of the rewards, and their training signal.",
    (
        chart(
            "Mean reward",
            "Failed checks are left out.",
            "short",
            ("layer{layer}/reward_mean", LAYER),
        ),
        chart(
            "Terms of the reward",
            "What each returned, without its weight.",
            "short",
            ("layer{layer}/reward_term/{term}", "layer {{layer}} {{term}}"),
            only_when="the reward has several terms or numbers",
        ),
        share(
            "Corrections with feedback",
            "Those that read what the check said of their attempt.",
            ("layer{layer}/feedback_fraction", LAYER),
            only_when="a layer has guidance from: check",
        ),
        chart(
            "Length of feedback",
            "Tokens of it in a prompt, where there is any.",
            "short",
            ("layer{layer}/feedback_tokens_mean", LAYER),
            only_when="a layer has guidance from: check",
        ),
        share(
            "Outcomes of the checks",
            "Timeouts and errors leave the loss; the run stops where they are too many.",
            ("rewards/{status}", "{{status}}"),
        ),
        Panel(
            "Failed checks",
            "Timeouts and errors together, a share of all completions.",
            "percentunit",
            (
                Query(
                    "sum by (run) ("
                    + Metric("rewards/{status}", 'status=~"timeout|error"').series
                    + ")",
                    "{{run}} failed",
                ),
            ),
        ),
        share(
            "Groups without a training signal",
            "Groups whose rewards are all equal: they have no training signal.",
            ("layer{layer}/zero_variance_fraction", LAYER),
        ),
        share(
            "Completions that train",
            "Of those that were scored.",
            ("layer{layer}/selected_fraction", LAYER),
        ),
        chart(
            "Mean size of advantages",
            "Near 0 there is no training signal.",
            "short",
            ("layer{layer}/advantage_abs_mean", LAYER),
        ),
    ),
)

WEIGHTS = Board(
    "mgrpo-weights",
    "MGRPO weights and mismatch",
    "Agreement of engines and learner: weights and log-probabilities.",
    (
        Panel(
            "Log-probability gap, engines to learner",
            "Nats. Rounding alone is far below 0.01 in float32 and some 0.01 in bfloat16.",
            "short",
            lines(
                ("mismatch/logprob_gap_mean", "mean"),
                ("mismatch/logprob_gap_p99", "99th percentile"),
                ("mismatch/logprob_gap_max", "largest"),
            ),
            is_logarithmic=True,
        ),
        chart(
            "Probe after a broadcast",
            "Largest difference on a fixed prompt between the learner and any engine, in nats.",
            "short",
            ("weights/probe_gap_max", "probe"),
            is_logarithmic=True,
        ),
        chart(
            "Time of a broadcast",
            "With its verification.",
            "s",
            ("weights/sync_s", "broadcasts of a step"),
        ),
        chart(
            "Policy version",
            "Optimizer steps in the weights that are sampled from.",
            "short",
            ("policy_version", "version"),
        ),
        chart(
            "Importance weight",
            "Mean weight that corrects for the gap; 1 is no correction.",
            "short",
            ("mismatch/importance_weight_mean", "mean weight"),
        ),
        share(
            "Capped importance weights",
            "Tokens whose weight hit its cap.",
            ("mismatch/importance_capped_fraction", "capped"),
        ),
    ),
)

BOARDS = (TRAINING, ROLLOUTS, PIPELINE, REWARDS, WEIGHTS, FAULTS)
