"""The labels of existing faces."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from synfer_ray.config.experts import ExpertConfig, FacesConfig, VoteConfig
from synfer_ray.config.pools import PoolConfig


@dataclass
class RequestsConfig:
    """How a served calibrator is asked: `concurrency` requests of `batch_size` images at once.

    `timeout` is for one attempt, `retries` counts the attempts after it. The bearer token, if the service
    wants one, is read from the environment variable `token_env`.
    """

    concurrency: int = 4
    batch_size: int = 8
    timeout: float = 30.0
    retries: int = 6
    token_env: str = "SYNFER_TOKEN"


@dataclass
class CalibrateConfig:
    """Checks the labels of faces in `input`: a folder, Parquet files or WebDataset tars.

    The columns are those of the input; integer labels follow the classes the input states, or `label_order`:
    a name of `taxonomy.expressions.LABEL_ORDERS` or its class names with commas.

    With `server`, the URL of a served calibrator, its models vote by its rules: `bundle`, `voters`,
    `experts`, `vote` and `image_size` are the server's then.
    """

    input: str = MISSING
    output: str = MISSING
    server: str = ""
    bundle: str = "fer64"
    image_column: str = "image"
    label_column: str = "label"
    name_column: str = ""
    label_order: str = ""

    voters: list[str] = field(default_factory=lambda: ["feranno", "residual", "separable"])
    experts: dict[str, ExpertConfig] = field(default_factory=dict)
    faces: FacesConfig = field(default_factory=FacesConfig)
    vote: VoteConfig = field(default_factory=VoteConfig)

    image_size: int | None = None
    batch_size: int = 32
    num_threads: int = 1
    shard_rows: int = 256
    voter_pool: PoolConfig = field(default_factory=PoolConfig)
    requests: RequestsConfig = field(default_factory=RequestsConfig)
