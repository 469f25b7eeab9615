"""What Prometheus learns of the service, besides what Ray Serve reports of every one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ray.serve.metrics import Counter, Histogram

if TYPE_CHECKING:
    from synfer_ray.serving.ensemble import Verdict

LATENCIES_MS: list[float] = [5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000]
BATCH_SIZES: list[float] = [1, 2, 4, 8, 16, 32, 64]


class Metrics:
    """The numbers of one replica; Ray exports them as `ray_synfer_...`, with the replica's name."""

    def __init__(self) -> None:
        self.requests = Counter(
            "synfer_requests",
            "Requests by protocol and HTTP status.",
            tag_keys=("protocol", "status"),  # type: ignore[arg-type]  # Ray's annotation means any number
        )
        self.latency = Histogram(
            "synfer_latency_ms",
            "From a request's arrival to its answer.",
            LATENCIES_MS,
            tag_keys=("protocol",),
        )
        self.batch = Histogram("synfer_batch_faces", "Faces of a device batch, without padding.", BATCH_SIZES)
        self.decisions = Counter(
            "synfer_decisions",
            "Verdicts by decision and label.",
            tag_keys=("decision", "label"),  # type: ignore[arg-type]
        )

    def request(self, protocol: str, status: int, seconds: float) -> None:
        """Counts an answered request."""
        self.requests.inc(tags={"protocol": protocol, "status": str(status)})
        self.latency.observe(seconds * 1000, tags={"protocol": protocol})

    def faces(self, verdicts: Sequence["Verdict"]) -> None:
        """Counts a device batch and its verdicts."""
        if verdicts:
            self.batch.observe(len(verdicts))
        for verdict in verdicts:
            self.decisions.inc(tags={"decision": verdict.decision, "label": verdict.label})
