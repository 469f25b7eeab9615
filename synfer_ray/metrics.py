"""What a run tells Prometheus, through Ray: counts of every commit, and its pace."""

from typing import Any

from synfer_ray.reporting.pace import Pace
from synfer_ray.storage.shards import Commit, label_counts

SECONDS = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]


class RunMetrics:
    """The metrics of one run, tagged with its name; Ray prefixes them with `ray_`."""

    def __init__(self, run: str):
        from ray.util.metrics import Counter, Gauge, Histogram

        def make(kind: type, name: str, description: str, *tags: str, **options: Any) -> Any:
            metric = kind(f"synfer_{name}", description, tag_keys=("run", *tags), **options)
            metric.set_default_tags({"run": run})
            return metric

        self.images = make(Counter, "images", "Rows written, by calibrated label.", "expression")
        self.rejects = make(Counter, "rejects", "Rows rejected, by reason.", "reason")
        self.shards = make(Counter, "shards", "Shards committed.")
        self.seconds = make(
            Histogram,
            "stage_seconds",
            "Seconds that a stage took for one shard.",
            "stage",
            boundaries=SECONDS,
        )
        self.guidance = make(Gauge, "guidance_share", "Share of images guided in every guided step.")
        self.planned = make(Gauge, "planned_images", "Rows of the plan.")
        self.settled = make(Gauge, "settled_images", "Rows written or rejected.")
        self.per_second = make(Gauge, "images_per_second", "Rows settled a second, lately.")
        self.seconds_left = make(Gauge, "eta_seconds", "Seconds to go at the rate of this run.")
        self.busy = make(Gauge, "busy_actors", "Actors at work on average, lately.", "stage")
        self.actors = make(Gauge, "pool_actors", "Actors that a stage may have.", "stage")
        self.rows = self.unguided = 0

    def count(self, commit: Commit) -> None:
        """Adds a committed shard."""
        self.shards.inc()
        labels = label_counts([commit])
        unlabelled = commit.rows - sum(labels.values())
        for name, rows in (labels | ({"unlabelled": unlabelled} if unlabelled else {})).items():
            self.images.inc(rows, {"expression": name})
        for reason, rows in commit.reasons.items():
            self.rejects.inc(rows, {"reason": reason})
        for stage, seconds in commit.seconds.items():
            self.seconds.observe(seconds, {"stage": stage})
        self.rows += commit.rows
        self.unguided += commit.unguided
        if self.rows:
            self.guidance.set(1 - self.unguided / self.rows)

    def show(self, pace: Pace) -> None:
        """Sets the gauges."""
        self.settled.set(pace.settled)
        gauges = {
            self.planned: pace.planned,
            self.per_second: pace.per_second,
            self.seconds_left: pace.seconds_left,
        }
        for gauge, value in gauges.items():
            if value is not None:
                gauge.set(value)
        for gauge, values in {self.busy: pace.busy, self.actors: pace.actors}.items():
            for stage, value in values.items():
                gauge.set(value, {"stage": stage})
