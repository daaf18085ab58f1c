"""E-GRPO (arXiv 2510.24694)."""

PLUGINS = {
    "entity_reward": "plugin:EntityReward",
    "problem_entities": "problem_entities:ProblemEntities",
}
