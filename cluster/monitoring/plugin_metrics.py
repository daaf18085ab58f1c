"""Metrics of methods' parts, which exist only if a recipe uses them."""

from __future__ import annotations

from cluster.monitoring.names import FRACTION, Family

MISMATCH_CORRECTION = (
    Family("mismatch/rejected_fraction", FRACTION, "Completions left out as too far off policy."),
    Family("mismatch/weight_mean", "weight", "Mean correcting weight of a token or completion."),
    Family("mismatch/weight_clipped_fraction", FRACTION, "Weights that were cut at their bound."),
    Family("mismatch/k3", "nats", "Mean k3 estimate of the divergence of engines and learner."),
)

SAMPLING = (
    Family("sampler/{domain}", FRACTION, "Chance that the next problem is of a domain."),
    Family("sampler_belief/{group}", FRACTION, "Belief that problems are of a latent group."),
    Family("dynamic_sampling/drawn", "problems", "Problems that were sampled to fill the step."),
    Family("dynamic_sampling/kept_fraction", FRACTION, "Problems with right and wrong attempts."),
    Family("error_pool/size", "attempts", "Wrong attempts that wait for a correction step."),
    Family("error_pool/added", "attempts", "Wrong attempts that the step added to the pool."),
    Family("error_pool/dropped_stale", "attempts", "Attempts that became too old to be used."),
    Family("error_pool/is_correction_step", "0 or 1", "Whether the step trained corrections."),
    Family("pairs/made_{kind}", "pairs", "Pairs for DPO that the step made of its completions."),
    Family("pairs/waiting", "pairs", "Pairs that wait for their phase."),
    Family("pairs/of_phase", "pairs", "Pairs that the phase trains on."),
    Family("pairs/trained", "pairs", "Pairs that the step trained on."),
    Family("pairs/dropped_problems", "problems", "Problems that the verifier has taken out."),
    Family("correction_buffer/size", "corrections", "Corrections that are kept for replay."),
    Family("correction_buffer/replayed", "corrections", "Corrections that the step replayed."),
)

ADVANTAGES = (
    Family("gpg/alpha", "factor", "By which gradients are scaled up for groups of zero variance."),
    Family(
        "unlikeliness/pass_at_group",
        FRACTION,
        "Problems with a right completion among their group's: pass@N of N = group_size.",
    ),
    Family("dagrpo/distinct_pairs_fraction", FRACTION, "Pairs of a group that are distinct."),
    Family("disco/objective", "objective", "Mean objective of a group's right and wrong sets."),
    Family(
        "nthr/spared_fraction",
        FRACTION,
        "Tokens of wrong answers that were exempted from the penalty.",
    ),
    Family("likelihood_change/mean", "nats", "Of the last step's right answers, by the step."),
    Family("likelihood_change/fallen_fraction", FRACTION, "Problems whose right answers fell."),
    Family("gcpo/weight_mean", "weight", "Mean factor on the advantages."),
    Family("gcpo/turned_fraction", FRACTION, "Completions whose factor was below 0."),
    Family("gcpo/kl", "nats per token", "Divergence from the integrated answers."),
    Family("gcpo/floored_fraction", FRACTION, "Target tokens that were lifted to the floor."),
    Family("gcpo/answers_cut", FRACTION, "Answers that were cut to fit."),
    Family("cal/first_weight_mean", "weight", "Mean factor on the advantages of first attempts."),
    Family(
        "self_distillation/advantage_mean",
        "reward",
        "What corrections are worth above the mean first attempt.",
    ),
    Family(
        "self_distillation/positive_fraction",
        FRACTION,
        "Corrections that are better than the mean first attempt.",
    ),
    Family("refined_group/right_fraction", FRACTION, "Refinements in groups that are right."),
    Family(
        "refined_group/rescued_fraction",
        FRACTION,
        "Groups without a right attempt that get a right refinement.",
    ),
    Family("s2r/turns_mean", "turns", "Mean number of turns of a trajectory."),
    Family("best_trajectory/right_fraction", FRACTION, "Chosen trajectories that end right."),
    Family("sdpo/taught_fraction", FRACTION, "Attempts with a right solution to learn from."),
    Family("sdpo/gap_mean", "nats", "Mean log-probability under the teacher less the policy's."),
    Family("dpo/loss", "nats per pair", "Mean DPO loss of the pairs."),
    Family("dpo/margin", "nats", "Mean log-ratio to the reference, better side minus worse."),
    Family("dpo/accuracy", FRACTION, "Pairs whose better side has the larger log-ratio."),
    Family("kl_cov/held_fraction", FRACTION, "Tokens that a KL penalty holds."),
    Family("clip_cov/clipped_fraction", FRACTION, "Tokens that were taken out of the loss."),
    Family("top_entropy/threshold", "nats", "Entropy from which on a token trains."),
    Family("entropy_bonus/coefficient", "weight", "Weight of the entropy in the objective."),
    Family("kl_in_reward/kl", "nats per completion", "Divergence that the reward pays for."),
    Family("span_credit/credited_fraction", FRACTION, "Tokens that keep their advantage."),
)

REWARD_SHAPING = (
    Family("overlong/penalised_fraction", FRACTION, "Completions with a length penalty."),
    Family("entities/match_rate", FRACTION, "Entities of the problem that a completion names."),
    Family("credit_back/raised_fraction", FRACTION, "Attempts that their corrections raised."),
    Family("grpo_care/consistent_fraction", FRACTION, "Right answers that earned the bonus."),
    Family("grpo_care/answer_probability", "probability", "Mean, of the answer given its steps."),
    Family("steps/per_completion", "steps", "Mean number of steps that a completion was cut into."),
    Family("steps/score_mean", "score", "Mean score of a step by the preference model."),
)

ROBUSTNESS = (
    Family("group_dro/weight/{domain}", "weight", "Weight of a domain in the loss."),
    Family("group_dro/robust_failure_rate", FRACTION, "Wrong answers, weighed by domain."),
    Family("agro/robust_failure_rate", FRACTION, "Wrong answers, weighed by learned group."),
    Family("agro/membership_entropy", "nats", "How undecided the grouper is; 0: one group each."),
    Family("agro/imbalance", "nats", "How unequal the learned groups' sizes are; 0: equal."),
)

PLUGINS = tuple(
    Family(one.pattern, one.unit, one.meaning, only_when="the recipe has that part")
    for one in (
        *MISMATCH_CORRECTION,
        *SAMPLING,
        *ADVANTAGES,
        *REWARD_SHAPING,
        *ROBUSTNESS,
    )
)
