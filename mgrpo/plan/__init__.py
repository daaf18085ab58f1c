"""`mgrpo plan`: placement on GPUs, memory estimates, layouts and warnings; `mgrpo simulate`.

Computed from the recipe, the model's shape and the hardware's names: nothing is started, no GPU is
used, neither Ray nor torch is imported. Memory is an estimate by the formulas of `learner_memory`
and `engine_memory`; each item of a plan states its own. Times are simulated (`mgrpo.simulation`) by
the rates of `rates`: `simulated` is a recipe in the simulation's terms, `layouts` compares the ways
to use the GPUs, `search` also the sizes of a step.
"""
