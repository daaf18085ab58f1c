"""An update whose trees arrive while others are still being sampled.

Weights do not change before the last tree is in: it is the update that `DeepSpeedLearner.update`
makes of the same completions, to rounding. What a layer's losses are divided by is known at the end
alone; the gradient of each layer that trains is kept apart until then (`learner.gradient_sums`).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence

from learner.batch import TrainingBatch
from learner.columns import Metrics
from learner.denominators import divisor
from learner.packing import split_rows
from learner.rows import TrainingRow
from learner.trainer import Trainer
from learner.update_metrics import merge
from mgrpo.config import StepConfig
from mgrpo.errors import LearnerError
from mgrpo.types import Completion, Selection

logger = logging.getLogger(__name__)

REPLAYED = 0
"""The part of rows of earlier steps, whose weights are divided already; others are layers."""


class StreamedUpdate:
    """One update. Every rank calls it alike, with the same completions."""

    def __init__(
        self,
        trainer: Trainer,
        values: StepConfig,
        batch_of: Callable[[Sequence[Completion], Sequence[Completion]], TrainingBatch],
        *,
        rank: int,
        num_ranks: int,
    ) -> None:
        """
        Args:
            values: the sections of this step.
            batch_of: completions of whole trees, and parents that do not train -> their part of the
                step's batch.
        """
        self.trainer, self.values, self.batch_of = trainer, values, batch_of
        self.rank, self.num_ranks = rank, num_ranks
        self.totals: Counter[int] = Counter()
        self.metrics: Metrics = {}
        self.notes: set[str] = set()
        self.seen: set[str] = set()
        trainer.begin(values)

    def add(
        self, completions: Sequence[Completion], context: Sequence[Completion]
    ) -> list[Selection]:
        """Forward and backward of whole trees; the selection of each completion.

        Raises:
            LearnerError: completions are inconsistent, or came before.
        """
        names = {one.completion_id for one in completions}
        if twice := sorted(names & self.seen):
            raise LearnerError(f"Completion {twice[0]} was given twice; it would count twice.")
        self.seen |= names
        batch = self.batch_of(completions, context)
        self.totals.update(batch.totals)
        merge(self.metrics, batch.metrics)
        self.tell(batch.notes)
        for number in range(1, len(self.values.layers) + 1):
            self.trainer.add([row for row in batch.rows if row.layer == number], number)
        return batch.selections

    def finish(self, policy_version: int, replayed: Sequence[TrainingRow]) -> Metrics:
        """The optimizer step; the metrics of the whole update."""
        share = split_rows([row.num_input_tokens for row in replayed], self.num_ranks)[self.rank]
        self.trainer.add([replayed[place] for place in share], REPLAYED)
        factors = {layer: 1 / divisor(total) for layer, total in self.totals.items()}
        trained = self.trainer.finish({**factors, REPLAYED: 1.0}, policy_version)
        return {**self.metrics, **trained, **self.trainer.reader.costs()}

    def tell(self, notes: Sequence[str]) -> None:
        """Each note once."""
        for note in notes:
            if self.rank == 0 and note not in self.notes:
                logger.warning(note)
            self.notes.add(note)
