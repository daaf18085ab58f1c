"""A run's metrics as Ray gauges and counters, which Ray's nodes offer to Prometheus.

Ray forgets a gauge that was not set again for some 20 s, which is less than many a step takes.
So a thread sets the newest values again every few seconds for as long as the run lives: what
Prometheus sees of a run that ended, or died, ends with it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType

from ray.util.metrics import Counter, Gauge

from cluster.monitoring.catalogue import names
from cluster.monitoring.names import PREFIX, Family

REFRESH_S = 5.0
"""Ray's nodes are told of gauges every 10 s and keep each for 20 s."""
CLOSE_DEADLINE_S = 5.0

LAST_REPORT = f"{PREFIX}_last_report_time_seconds"
Key = tuple[str, tuple[tuple[str, str], ...]]  # name, tags


class RayMetrics:
    """Sends each step's values to Ray: a tracker that lives no longer than Ray does.

    Every series has the tag `run`; the others are what `cluster.monitoring.names` makes of the
    metric's name.
    """

    def __init__(
        self,
        run: str,
        *,
        refresh_s: float = REFRESH_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            run: the run's name, a tag of every series.
            refresh_s: how often the newest values are set again.
            clock: seconds since 1970.
        """
        self.run, self.clock = run, clock
        self.names = names()
        self.gauges: dict[str, Gauge] = {}
        self.counters: dict[str, Counter] = {}
        self.latest: dict[Key, float] = {}
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self.thread = threading.Thread(
            target=self._refresh, args=(refresh_s,), name="ray-metrics", daemon=True
        )
        self.thread.start()

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        """Set the gauges and add to the counters. Values that are None or not finite end theirs.

        A metric that this step does not have keeps its last value.
        """
        with self.lock:
            if self.ended.is_set():
                return
            for metric, value in {"step": float(step), **values}.items():
                self._set(metric, value)
            self._gauge(LAST_REPORT, "When the run last reported, in s since 1970.", ())
            self.latest[LAST_REPORT, ()] = self.clock()
            self._set_all()

    def close(self) -> None:
        """End the thread; the series end with it."""
        self.ended.set()
        self.thread.join(timeout=CLOSE_DEADLINE_S)

    def __enter__(self) -> RayMetrics:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _set(self, metric: str, value: float | None) -> None:
        family, tags = self.names.resolve(metric)
        key = (family.name, tuple(tags.items()))
        if value is None or not math.isfinite(value):
            self.latest.pop(key, None)
            return
        self._gauge(family.name, f"{family.meaning} Unit: {family.unit}.", family.tags)
        self.latest[key] = value
        if family.is_counted and value > 0:
            self._counter(family).inc(value, tags={"run": self.run, **tags})

    def _gauge(self, name: str, description: str, tags: tuple[str, ...]) -> None:
        if name not in self.gauges:
            self.gauges[name] = Gauge(name, description=description, tag_keys=("run", *tags))

    def _counter(self, family: Family) -> Counter:
        if family.name not in self.counters:
            self.counters[family.name] = Counter(
                family.counter_name,
                description=f"{family.meaning} Added up since the run was started.",
                tag_keys=("run", *family.tags),
            )
        return self.counters[family.name]

    def _set_all(self) -> None:
        for (name, tags), value in self.latest.items():
            self.gauges[name].set(value, tags={"run": self.run, **dict(tags)})

    def _refresh(self, refresh_s: float) -> None:
        while not self.ended.wait(refresh_s):
            with self.lock:
                self._set_all()
