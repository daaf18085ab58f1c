"""Whether nodes still answer: Ray notices the death of one up to a minute late.

Until then Ray places processes there, which die when it does notice. So nobody is placed again
before each node of the place that was lost has answered, or is known to be dead.
"""

from __future__ import annotations

from collections.abc import Iterable

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.remote import errors_of_signals


class NodeProbes:
    """One question to each of some nodes; also a `cluster.progress_board.Counter` of those that
    are known.

    Args:
        node_ids: Ray's, of nodes that it takes for alive or knows to be dead.
    """

    def __init__(self, node_ids: Iterable[str]) -> None:
        self.answers = {node_id: ask(node_id) for node_id in node_ids}
        self.num_nodes = len(self.answers)

    def are_known(self, *, timeout_s: float = 0) -> bool:
        """Whether each of them has answered or, as Ray knows, is dead.

        Args:
            timeout_s: longest wait for an answer.
        """
        if self.answers:
            with errors_of_signals():  # an error is an answer, too: such as that the node is dead
                answered, _ = ray.wait(
                    list(self.answers.values()), num_returns=len(self.answers), timeout=timeout_s
                )
            # A node that stands still keeps its connections: its question may stay open for long.
            dead = {node["NodeID"] for node in ray.nodes() if not node["Alive"]}
            self.answers = {
                node_id: answer
                for node_id, answer in self.answers.items()
                if answer not in answered and node_id not in dead
            }
        return not self.answers

    def count(self) -> int:
        return self.num_nodes - len(self.answers)

    def said(self) -> str:
        here = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
        silent = ", ".join(str(here.get(node_id, node_id)) for node_id in self.answers)
        return f"Neither has {silent} answered, nor has Ray marked it dead."


def ask(node_id: str) -> ray.ObjectRef:
    """A question to Ray's process on a node: may a process start there?"""
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    answer = ray.remote(num_cpus=0, max_retries=-1)(lambda: None)
    return answer.options(name="node probe", scheduling_strategy=there).remote()
