"""A dataset that is there already."""

from dataclasses import dataclass

from omegaconf import MISSING


@dataclass
class OutputConfig:
    """A dataset folder or URI; `output=` may be left out."""

    output: str = MISSING
