"""`mgrpo plan`: who sits where, what it holds in memory, and whether that is sensible.

Worked out from the recipe, the model's shape and the hardware's names alone: nothing is started,
no GPU is touched, neither Ray nor torch is imported. Memory is an estimate by the formulas of
`learner_memory` and `engine_memory`; each item of a plan carries its own.
"""
