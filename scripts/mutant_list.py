"""The mutants of `scripts/mutants.py`: one wrong change each, and the fast tests near it."""

from __future__ import annotations

from dataclasses import dataclass

LOOP = "tests/mgrpo/training/test_loop.py"
ORDERS = "tests/mgrpo/training/test_step_orders.py"
ROLLOUT = "tests/actors/test_rollout.py"
LAYERS = "tests/actors/test_layers.py"
LEASES = "tests/cluster/fleet/test_leases.py"
HEALTH = "tests/cluster/fleet/test_health.py"
ELASTIC = "tests/cluster/fleet/test_elastic.py"
BROADCAST = "tests/cluster/weight_sync/test_broadcast.py"
TRANSFER = "tests/cluster/weight_sync/test_weight_transfer.py"
BATCH = "tests/learner/test_batch.py"
COLUMNS = "tests/learner/test_columns.py"
CHECKSUM = "tests/cluster/weight_sync/test_checksum.py"
PACKING = "tests/learner/test_packing.py"
POLICY_READER = "tests/learner/test_policy_reader.py"
PREFIX_TREE = "tests/learner/test_prefix_tree.py"
TREE_ATTENTION = "tests/learner/test_tree_attention.py"
TRANSITIONS = "tests/mgrpo/metrics/test_transitions.py"
ALARMS = "tests/mgrpo/metrics/test_alarms.py"
LOG = "tests/mgrpo/metrics/test_log.py"


@dataclass(frozen=True)
class Mutant:
    """One change of one file, which one of the tests should notice."""

    name: str
    file: str
    old: str  # exact text, in the file once
    new: str
    tests: tuple[str, ...]
    is_required: bool = False  # survived a review once: never again


MUTANTS = (
    # --- training: loop, workers, hooks, checkpoints ---
    Mutant(
        "Q3 a checkpoint is due one step early",
        "mgrpo/training/checkpoints.py",
        "num_done % every == 0",
        "(num_done + 1) % every == 0",
        (LOOP,),
        is_required=True,
    ),
    Mutant(
        "Q2 stored pairs count as rollouts of their step",
        "mgrpo/methods/veripo/source.py",
        "        if not self.trains_on_rollouts(step):\n            return  #",
        "        if not self.trains_on_rollouts(step):\n            pass  #",
        (LOOP,),
        is_required=True,
    ),
    Mutant(
        "Q2 metrics count stored pairs as sampled",
        "mgrpo/metrics/transitions.py",
        "left_out = (EXPERT, STORED_PAIR)",
        "left_out = (EXPERT,)",
        (LOOP,),
        is_required=True,
    ),
    Mutant(
        "no checkpoint after the last step",
        "mgrpo/training/checkpoints.py",
        " or num_done == self.num_steps or is_last)",
        " or is_last)",
        (LOOP,),
    ),
    Mutant(
        "all checkpoints are kept",
        "mgrpo/training/checkpoints.py",
        "tidy(self.run_dir, self.config.keep, folder)",
        "tidy(self.run_dir, 1000, folder)",
        (LOOP,),
    ),
    Mutant(
        "a checkpoint that could not be finished is passed over",
        "mgrpo/training/checkpoints.py",
        "            self.error = error\n",
        "            self.finished = self.folder\n",
        ("tests/mgrpo/training/test_disk_refuses.py",),
    ),
    Mutant(
        "a checkpoint of another step's learner is read",
        "mgrpo/training/checkpoints.py",
        "if self.workers.policy_version != version:",
        "if False:",
        (LOOP,),
    ),
    Mutant(
        "the sources' state is forgotten on resume",
        "mgrpo/training/checkpoints.py",
        "self.sources.load_state_dict(state[SOURCES])",
        "self.sources.load_state_dict({})",
        (LOOP,),
    ),
    Mutant(
        "a signal is held back for ever after a step",
        "mgrpo/training/checkpoints.py",
        "        self.keep(self.state_dict(done.num_done))\n        self.signals.release()",
        "        self.keep(self.state_dict(done.num_done))",
        (LOOP,),
    ),
    Mutant(
        "a signal cuts through an update",
        "mgrpo/training/workers.py",
        "until this one is whole.\n        self.signals.hold(self.limits.on_signal_s)",
        "self.signals.release()",
        (LOOP,),
    ),
    Mutant(
        "a phase's temperature is ignored",
        "mgrpo/training/workers.py",
        "layers=values.layers, temperature=values.sampling.temperature",
        "layers=config.layers",
        (LOOP, "tests/mgrpo/training/test_roll_out.py"),
    ),
    Mutant(
        "the learner starts while engines hold its GPU",
        "mgrpo/training/workers.py",
        "            self.engines.offload_engines()\n            result",
        "            result",
        (LOOP,),
    ),
    Mutant(
        "engines are told the version before the update",
        "mgrpo/training/workers.py",
        "        self.policy_version = result.policy_version\n",
        "        self.policy_version = result.policy_version - 1\n",
        (LOOP,),
    ),
    Mutant(
        "a resumed run begins at step 0",
        "mgrpo/training/loop.py",
        "num_done, stop_because = run.first_step, run.stop_because",
        "num_done, stop_because = 0, run.stop_because",
        (LOOP,),
    ),
    Mutant(
        "sources do not see a step's completions",
        "mgrpo/training/loop.py",
        "    run.source.observe(step, completions, sums)\n",
        "",
        (LOOP,),
    ),
    Mutant(
        "a step's parents are not written down",
        "mgrpo/training/loop.py",
        "return [*work.parents, *completions]",
        "return completions",
        (LOOP, "tests/mgrpo/methods/scrpo/test_source.py"),
    ),
    Mutant(
        "a resumed run evaluates before it begins",
        "mgrpo/training/hooks.py",
        "if first_step == 0:",
        "if first_step >= 0:",
        (LOOP,),
    ),
    Mutant(
        "the last evaluation is made twice",
        "mgrpo/training/hooks.py",
        "num_done % every == 0 and num_done < num_steps",
        "num_done % every == 0",
        (LOOP,),
    ),
    Mutant(
        "an alarm never stops a run",
        "mgrpo/training/hooks.py",
        "        stop_if_asked(alarms)\n",
        "",
        (LOOP,),
    ),
    Mutant(
        "all completions of a step are written down",
        "mgrpo/training/hooks.py",
        "kept = set(list(trees)[:num_problems])",
        "kept = set(trees)",
        (LOOP,),
    ),
    # --- training: orders and sources ---
    Mutant(
        "layer 2 gets no parents of earlier steps",
        "mgrpo/training/step_orders.py",
        "attempts=[*work.ready, *work.parents],",
        "attempts=work.ready,",
        (ORDERS, "tests/mgrpo/methods/scrpo/test_source.py"),
    ),
    Mutant(
        "parents of earlier steps are unknown to the update",
        "mgrpo/training/step_orders.py",
        "step, completions, sums, parents=work.parents, replayed=work.replayed",
        "step, completions, sums, replayed=work.replayed",
        (LOOP,),
    ),
    Mutant(
        "corrections are replayed in every update of a step",
        "mgrpo/training/step_orders.py",
        "work.replayed if number == 1 else ()",
        "work.replayed",
        (LOOP,),
    ),
    Mutant(
        "excluded problems are drawn again",
        "mgrpo/training/sources/fresh.py",
        "if one.problem_id not in self.excluded]",
        "]",
        ("tests/mgrpo/training/sources/test_fresh.py",),
    ),
    Mutant(
        "a stack asks its lowest source",
        "mgrpo/training/sources/stack.py",
        "return self.sources[-1].next(step, workers, sums)",
        "return self.sources[0].next(step, workers, sums)",
        (LOOP,),
    ),
    Mutant(
        "kept corrections of any age are replayed",
        "mgrpo/methods/mgrpo_replay/source.py",
        "self.buffer.draw(step, workers.policy_version)",
        "self.buffer.draw(step, 0)",
        ("tests/mgrpo/methods/mgrpo_replay/test_source.py",),
    ),
    Mutant(
        "pooled errors of any age are corrected",
        "mgrpo/methods/scrpo/source.py",
        "self.pool.drop_stale(workers.policy_version)",
        "self.pool.drop_stale(0)",
        ("tests/mgrpo/methods/scrpo/test_source.py",),
    ),
    Mutant(
        "solved problems come back after a resume",
        "mgrpo/methods/veripo/source.py",
        "        self.cycle.load_state_dict(state)\n        self.fresh.excluded",
        "        self.cycle.load_state_dict(state)\n        _",
        ("tests/mgrpo/methods/veripo/test_source.py",),
    ),
    Mutant(
        "dynamic sampling samples layer 1 twice",
        "mgrpo/methods/dapo/dynamic_sampling.py",
        "layers=range(2, num_layers + 1),",
        "layers=range(1, num_layers + 1),",
        ("tests/mgrpo/methods/dapo/test_dynamic_sampling.py",),
    ),
    # --- actors: rollout and layers ---
    Mutant(
        "R1 a parent's phrases are sampled with one seed",
        "actors/rollout.py",
        "stable_seed(self.seed, request.id_prefix, request.first_index)",
        "stable_seed(self.seed, request.id_prefix)",
        (ROLLOUT,),
        is_required=True,
    ),
    Mutant(
        "R2 every engine is asked at temperature 1",
        "actors/rollout.py",
        "            temperature=self.temperature,\n",
        "            temperature=1.0,\n",
        (ROLLOUT, LOOP),
        is_required=True,
    ),
    Mutant(
        "every layer may write as much as the first",
        "actors/rollout.py",
        "max_tokens=self.layers[number - 1].max_completion_tokens",
        "max_tokens=self.layers[0].max_completion_tokens",
        (ROLLOUT, LOOP),
    ),
    Mutant(
        "checks are not told what the prompt wrote of the answer",
        "actors/rollout.py",
        "problem = replace(problem, prompt_opening=request.prompt_opening)",
        'problem = replace(problem, prompt_opening="")',
        (ROLLOUT,),
    ),
    Mutant(
        "a completion's version is forgotten",
        "mgrpo/types.py",
        "            version_spans=self.version_spans,\n        )\n",
        "            version_spans=((0, 0),),\n        )\n",
        (LOOP,),
    ),
    Mutant(
        "parents beyond k are given back",
        "actors/layers.py",
        "return shuffled[: parents.k]",
        "return shuffled",
        (LAYERS,),
    ),
    Mutant(
        "attempts whose check failed are given back",
        "actors/layers.py",
        "        and attempt.reward.is_usable\n",
        "",
        (LAYERS,),
    ),
    Mutant(
        "every correction gets the first phrase",
        "actors/layers.py",
        "layer, layer.guidance.phrases[guidance_id], has_feedback",
        "layer, layer.guidance.phrases[0], has_feedback",
        (LAYERS, ROLLOUT),
    ),
    Mutant(
        "ids of a parent's corrections begin anew with each phrase",
        "actors/layers.py",
        "        first_index += count\n",
        "",
        (LAYERS,),
    ),
    # --- cluster: fleet ---
    Mutant(
        "a request goes again to the engine that failed it",
        "cluster/fleet/leases.py",
        "            failed_on.append(engine.name)\n",
        "            failed_on = [engine.name] if num_resent > 99 else [*failed_on]\n",
        (LEASES, "tests/cluster/fleet/test_progress_watch.py"),
    ),
    Mutant(
        "the busiest engine is taken",
        "cluster/fleet/leases.py",
        "least = min(others, key=lambda one: one.num_inflight)",
        "least = max(others, key=lambda one: one.num_inflight)",
        (LEASES, ROLLOUT),
    ),
    Mutant(
        "an engine is busy for ever",
        "cluster/fleet/leases.py",
        "            engine.num_inflight -= num_samples + num_spare\n",
        "            pass\n",
        (LEASES, ROLLOUT),
    ),
    Mutant(
        "an engine that missed a broadcast stays healthy",
        "cluster/fleet/health.py",
        "            return moved(health, EngineState.STALE, now, has_weights=False)\n",
        "            return health\n",
        (HEALTH,),
    ),
    Mutant(
        "a silent engine dies when it is suspected",
        "cluster/fleet/health.py",
        "if silence_s >= patience.dead_after_s:",
        "if silence_s >= patience.suspect_after_s:",
        (HEALTH,),
    ),
    Mutant(
        "restarts are not bounded",
        "cluster/fleet/health.py",
        "return len(recent) < patience.max_restarts",
        "return True",
        (HEALTH,),
    ),
    Mutant(
        "a pool grows before the last engine has come",
        "cluster/fleet/elastic.py",
        "may_grow = num_asked < count.max and load.num_coming == 0",
        "may_grow = num_asked < count.max",
        (ELASTIC,),
    ),
    Mutant(
        "a pool shrinks below its fewest",
        "cluster/fleet/elastic.py",
        "if num_asked > count.min and",
        "if num_asked >= count.min and",
        (ELASTIC,),
    ),
    # --- cluster: weights ---
    Mutant(
        "W1 the version that an engine reports is not compared",
        "cluster/weight_sync/broadcast.py",
        "if version != str(policy_version):",
        "if False:",
        (BROADCAST,),
        is_required=True,
    ),
    Mutant(
        "checksums are not compared",
        "cluster/weight_sync/broadcast.py",
        "                if differing:\n",
        "                if False:\n",
        (BROADCAST,),
    ),
    Mutant(
        "one wrong token of the probe is accepted",
        "cluster/weight_sync/broadcast.py",
        "if not (mean <= self.tolerance and largest <=",
        "if not (mean <= self.tolerance or largest <=",
        (BROADCAST, TRANSFER),
    ),
    Mutant(
        "engines with several workers count once in the group",
        "cluster/weight_sync/broadcast.py",
        "num_receivers=group.workers_per_engine * len(engines),",
        "num_receivers=len(engines),",
        (BROADCAST, TRANSFER),
    ),
    Mutant(
        "workers of two engines share ranks",
        "cluster/weight_sync/engine_client.py",
        "offset + index * self.workers_per_engine",
        "offset + index",
        (BROADCAST, TRANSFER),
    ),
    Mutant(
        "an engine that came later is not in the group",
        "cluster/weight_sync/broadcast.py",
        "if self.engines != list(engines):",
        "if not self.engines:",
        (BROADCAST,),
    ),
    Mutant(
        "tensors that are missing on the receiving side do not differ",
        "cluster/weight_sync/broadcast.py",
        "return [name for name in names if sent.get(name) != received.get(name)]",
        "return [n for n in names if n in received and sent.get(n) != received[n]]",
        (TRANSFER,),
    ),
    Mutant(
        "a checksum does not look where in its row a word is",
        "cluster/weight_sync/checksum.py",
        "for part in (rows, columns, flat[size:]):",
        "for part in (rows, flat[size:]):",
        (CHECKSUM,),
    ),
    # --- learner: batch and packing ---
    Mutant(
        "tokens without loss have a weight",
        "learner/batch.py",
        "batch.spread(decided.weights) * batch.is_trained",
        "batch.spread(decided.weights)",
        (BATCH, COLUMNS),
    ),
    Mutant(
        "a plug-in's rewards reach layers that it does not work on",
        "learner/batch.py",
        "rewards = torch.where(batch.in_layers(plugin.layers), changed, rewards)",
        "rewards = changed",
        (BATCH, COLUMNS),
    ),
    Mutant(
        "a layer's own weight of the KL term is ignored",
        "learner/batch.py",
        "return objective.kl.weight if layer.kl_weight is None else layer.kl_weight",
        "return objective.kl.weight",
        (BATCH, COLUMNS),
    ),
    Mutant(
        "rows that only the KL term moves are dropped",
        "learner/rows.py",
        "return self.kl_weight > 0 or has_more or",
        "return has_more or",
        (BATCH,),
    ),
    Mutant(
        "tokens are predicted one place late",
        "learner/packing.py",
        "first = len(row.prompt_token_ids) - 1",
        "first = len(row.prompt_token_ids)",
        (PACKING,),
    ),
    Mutant(
        "ranks have different numbers of micro-batches",
        "learner/policy_reader.py",
        "return plan + [[] for _ in range(int(most) - len(plan))]",
        "return plan if most else []",
        (POLICY_READER,),
    ),
    Mutant(
        "a micro-batch is one row above its budget",
        "learner/packing.py",
        "(len(microbatches[-1]) + 1) * longest <= budget_tokens",
        "len(microbatches[-1]) * longest <= budget_tokens",
        (PACKING,),
    ),
    Mutant(
        "equal tokens of different nodes go through the output layer once",
        "learner/packing.py",
        "np.concatenate(positions) << TOKEN_ID_BITS | target_ids",
        "target_ids",
        (PACKING, TREE_ATTENTION),
    ),
    Mutant(
        "new tokens of a row are looked for as far behind as its bucket's are",
        "learner/prefix_tree.py",
        "here = slice(num_shared - first_query, len(path) - first_query)",
        "here = slice(0, len(path) - num_shared)",
        (PREFIX_TREE, TREE_ATTENTION),
    ),
    # --- metrics ---
    Mutant(
        "a maximum keeps the newest value",
        "mgrpo/metric_sums.py",
        "best = max(total, self.sums[name][0]) if name in self.sums else total",
        "best = total",
        (LOG,),
    ),
    Mutant(
        "attempts of earlier steps count as sampled",
        "mgrpo/metrics/transitions.py",
        "return [completion for completion in completions "
        "if completion.augmented_by != EARLIER_STEP]",
        "return list(completions)",
        (TRANSITIONS,),
    ),
    Mutant(
        "two completions without an answer copy each other",
        "mgrpo/metrics/transitions.py",
        "return answer is not None and answer == final_answer(correction)",
        "return answer == final_answer(correction)",
        (TRANSITIONS,),
    ),
    Mutant(
        "an alarm sounds one step late",
        "mgrpo/metrics/alarms.py",
        "if row.num_steps < config.patience_steps or not is_due:",
        "if row.num_steps <= config.patience_steps or not is_due:",
        (ALARMS,),
    ),
    Mutant(
        "an alarm is repeated at every step",
        "mgrpo/metrics/alarms.py",
        "row.last_alarm_step is None or step >= row.last_alarm_step + self.repeat_every_steps",
        "True",
        (ALARMS,),
    ),
    Mutant(
        "steps of an interrupted run stay beside the repeated ones",
        "mgrpo/metrics/log.py",
        'while kept and kept[-1]["step"] >= row["step"]:',
        'while kept and kept[-1]["step"] > row["step"]:',
        (LOG,),
    ),
)
