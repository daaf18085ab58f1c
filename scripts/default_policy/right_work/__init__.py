"""Makes a candidate for the default policy that learned from right work alone.

Its mistakes are its own: it is stopped while it still errs. `python -m
scripts.default_policy.right_work` makes it, `...right_work.measure` measures it.
None that it made is shipped yet.
"""
