"""A discrete-event model of training steps: how busy GPUs are, and how long a step takes.

    workload.py   what a step samples and trains: problems, layers, lengths
    rates.py      how fast engines and learner are, and how often they fail
    engine.py     one engine: a batch that sequences enter and leave
    pools.py      engines that share requests
    simulator.py  the events of a run, and the rules of `pipeline.max_staleness_steps`
    outcome.py    what was recorded: busy shares, seconds, tokens
    picture.py    the outcome as a timeline, in text and SVG
    measured.py   rates and lengths of a run that has been

Pure and seeded: nothing is started, and equal inputs give equal outcomes. Events are a heap of
times (heapq). An engine whose batch changes moves its next event, often hundreds of times per step;
with simpy each sequence would be a process that every other one of its batch interrupts.
"""
