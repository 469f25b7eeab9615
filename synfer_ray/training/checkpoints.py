"""The state of a training as a file: weights, optimiser, averaged weights and the step."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from synfer_ray.training.loop import Objective

FILE = "checkpoint.pt"


def save(
    folder: Path, objective: "Objective", optimizer: torch.optim.Optimizer, average: Any, step: int
) -> None:
    """Writes the state after `step` steps; a reader finds the last whole one."""
    trained = objective.trained()
    frozen = {name for name, value in objective.named_parameters() if name not in trained}
    state = {name: value for name, value in objective.state_dict().items() if name not in frozen}
    partial = (folder / FILE).with_suffix(".partial")
    torch.save(
        {
            "step": step,
            "model": state,
            "optimizer": optimizer.state_dict(),
            "average": average.state_dict(),
        },
        partial,
    )
    partial.replace(folder / FILE)


def restore(folder: Path, objective: "Objective", optimizer: torch.optim.Optimizer, average: Any) -> int:
    """Takes up the state in `folder`; returns the steps that were made."""
    device = next(objective.parameters()).device
    state = torch.load(folder / FILE, map_location=device, weights_only=True)
    objective.load_state_dict(state["model"], strict=False)
    optimizer.load_state_dict(state["optimizer"])
    average.load_state_dict(state["average"])
    return state["step"]


def load_average(objective: "Objective", folder: Path) -> None:
    """Fills the objective with the averaged weights of a checkpoint, ready to export."""
    from diffusers.training_utils import EMAModel

    state = torch.load(folder / FILE, map_location="cpu", weights_only=True)
    objective.load_state_dict(state["model"], strict=False)
    parameters = list(objective.trained().values())
    average = EMAModel(parameters)
    average.load_state_dict(state["average"])
    average.copy_to(parameters)
    objective.eval()
