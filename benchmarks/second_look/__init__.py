"""When does a second look make a better policy? Arms under one budget, on two families of problems.

docs/results/protocol.md says what is compared, how, and what counts as a result.
"""
