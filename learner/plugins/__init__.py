"""Our learner plug-ins, one per file."""

PLUGINS = {
    "entropy_bonus": "entropy_bonus:EntropyBonus",
    "kl_in_reward": "kl_in_reward:KlInReward",
    "supervised_injections": "supervised_injections:SupervisedInjections",
    "top_entropy_tokens": "top_entropy_tokens:TopEntropyTokens",
    "unbiased_kl": "unbiased_kl:UnbiasedKl",
}
LOSSES = {"reinforce": "reinforce:Reinforce"}
