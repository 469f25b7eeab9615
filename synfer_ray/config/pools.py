"""How many actors a stage has, and what each one takes."""

from dataclasses import dataclass, field


@dataclass
class PoolConfig:
    """A pool of actors and what each one takes of the machine.

    Without `max_actors` the pool has `min_actors`; without these too it fills the cores, or the GPUs, that
    the cluster has when the job starts. `num_gpus` may be a part of one; `resources` are custom ones, such as
    {voter: 0.01}, which only some kinds of nodes have.
    """

    min_actors: int | None = None
    max_actors: int | None = None
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    resources: dict[str, float] = field(default_factory=dict)
