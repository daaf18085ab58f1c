ADVANTAGES = {"reinforce_plus_plus": "plugin:ReinforcePlusPlus"}
