PLUGINS = {
    "entity_reward": "plugin:EntityReward",
    "problem_entities": "problem_entities:ProblemEntities",
}
