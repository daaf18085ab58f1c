"""A run's metrics as Ray gauges, which Ray's nodes export to Prometheus.

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

from ray.util.metrics import Gauge

from cluster.monitoring.catalogue import names
from cluster.monitoring.names import PREFIX

REFRESH_S = 5.0
"""Ray's nodes receive gauges every 10 s and keep each for 20 s."""
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
        self.totals: dict[Key, float] = {}
        self.latest: dict[Key, float] = {}
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self.thread = threading.Thread(
            target=self._refresh, args=(refresh_s,), name="ray-metrics", daemon=True
        )
        self._report()
        self.thread.start()

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        """Set the gauges. Values that are None or not finite end theirs.

        A metric that this step does not have keeps its last value.
        """
        with self.lock:
            if self.ended.is_set():
                return
            for metric, value in {"step": float(step), **values}.items():
                self._set(metric, value)
            self._report()

    def close(self) -> None:
        """End the thread; the series end with it."""
        with self.lock:
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
        if family.is_counted:
            self._gauge(family.counter_name, f"{family.meaning} Since the start.", family.tags)
            counter = (family.counter_name, key[1])
            self.totals[counter] = self.latest[counter] = self.totals.get(counter, 0.0) + value

    def _gauge(self, name: str, description: str, tags: tuple[str, ...]) -> None:
        if name not in self.gauges:
            self.gauges[name] = Gauge(name, description=description, tag_keys=("run", *tags))

    def _report(self) -> None:
        """The run is alive, now; from its start on, so that a first step can be late too."""
        self._gauge(LAST_REPORT, "When the run last reported, in s since 1970.", ())
        self.latest[LAST_REPORT, ()] = self.clock()
        self._set_all()

    def _set_all(self) -> None:
        for (name, tags), value in self.latest.items():
            self.gauges[name].set(value, tags={"run": self.run, **dict(tags)})

    def _refresh(self, refresh_s: float) -> None:
        while not self.ended.wait(refresh_s):
            with self.lock:
                self._set_all()
