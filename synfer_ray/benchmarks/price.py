"""What a million images cost, on paper: GPU hours and dollars by what one GPU makes in a second."""

from dataclasses import dataclass

MILLION = 1_000_000


@dataclass(frozen=True)
class Assumptions:
    """What stands between a GPU's own rate and a finished dataset.

    Attributes:
        engine: rows/s of the job in its steady window over those of its generators alone (P1).
        accepted: share of the planned rows that the voters let pass.
        interruptions: of one pre-emptible GPU in an hour.
        restart_seconds: until a new GPU makes images: the node, its image, the models.
        shard_rows: an interruption loses half of the shard in work on average.
    """

    engine: float = 0.95
    accepted: float = 0.8
    interruptions: float = 0.05
    restart_seconds: float = 300.0
    shard_rows: int = 1000

    def useful(self, images_per_second: float) -> float:
        """Returns the share of a paid second that ends up in accepted images."""
        lost = self.interruptions * (self.restart_seconds + self.shard_rows / 2 / images_per_second) / 3600
        return self.engine * self.accepted * max(0.0, 1 - lost)


def gpu_hours(images_per_second: float, images: int = MILLION, given: Assumptions | None = None) -> float:
    """Returns the hours of one GPU for `images` accepted ones."""
    return images / (images_per_second * (given or Assumptions()).useful(images_per_second)) / 3600


def price_table(rates: list[float], dollars_per_hour: list[float], given: Assumptions | None = None) -> str:
    """Returns a Markdown table: a row for each rate of one GPU, a column for each price of it."""
    head = ["images/s of one GPU", "GPU hours", *(f"at ${price:.2f}/h" for price in dollars_per_hour)]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for rate in rates:
        hours = gpu_hours(rate, given=given)
        cells = [f"{rate:g}", f"{hours:,.0f}", *(f"${hours * price:,.0f}" for price in dollars_per_hour)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
