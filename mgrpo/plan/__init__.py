"""`mgrpo plan`: placement on GPUs, memory estimates, and warnings.

Computed from the recipe, the model's shape and the hardware's names: nothing is started, no GPU is
used, neither Ray nor torch is imported. Memory is an estimate by the formulas of `learner_memory`
and `engine_memory`; each item of a plan states its own.
"""
