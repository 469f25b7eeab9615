"""How far a run is, in one line: the same for a driver that counts commits and for a reader of the folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta


@dataclass(frozen=True)
class Pace:
    """A run at one moment.

    Attributes:
        settled: rows written or rejected, of `planned`.
        per_second: rows settled a second lately; None if nobody can tell yet.
        seconds_left: at the rate of the whole run.
        reasons: rejected rows by reason.
        busy: actors at work on average lately, by stage.
        actors: how many there may be, by stage; empty if nobody can tell.
    """

    settled: int
    planned: int | None
    per_second: float | None = None
    seconds_left: float | None = None
    reasons: Mapping[str, int] = field(default_factory=dict)
    busy: Mapping[str, float] = field(default_factory=dict)
    actors: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"{self.settled:,}/{self.planned:,} images" if self.planned else f"{self.settled:,} images"]
        if self.planned:
            parts[0] += f" ({100 * self.settled / self.planned:.1f} %)"
        if self.per_second is not None:
            parts.append(f"{self.per_second:.2f} images/s")
        if self.seconds_left is not None:
            parts.append(f"ETA {timedelta(seconds=round(self.seconds_left))}")
        parts.append(f"{sum(self.reasons.values()):,} rejected{describe_counts(self.reasons)}")
        if self.busy:
            parts.append(f"busy {', '.join(map(self._share, self.busy))}")
        return ", ".join(parts)

    def _share(self, stage: str) -> str:
        of = f" of {self.actors[stage]}" if stage in self.actors else ""
        return f"{stage} {self.busy[stage]:.1f}{of}"


def describe_counts(counts: Mapping[str, int]) -> str:
    """Returns ` (mismatch 30, black 1)`, the largest first, or nothing."""
    ordered = sorted(counts.items(), key=lambda count: -count[1])
    return f" ({', '.join(f'{name} {count:,}' for name, count in ordered)})" if counts else ""
