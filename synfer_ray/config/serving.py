"""The calibrator as a service."""

from dataclasses import dataclass, field

from synfer_ray.config.experts import ExpertConfig, VoteConfig


@dataclass
class LimitsConfig:
    """The largest request that is read; a larger one is refused before it is decoded.

    `max_body_bytes` counts an HTTP body or a gRPC message, `max_json_bytes` its JSON part, `max_pixels` one
    image, `max_faces` one request; `body_timeout_s` is how long a body may take to come.
    """

    max_body_bytes: int = 32 << 20
    max_json_bytes: int = 8 << 20
    body_timeout_s: float = 10.0
    max_pixels: int = 16_000_000
    max_faces: int = 64


@dataclass
class ReplicasConfig:
    """How many copies of the calibrator run, what each takes, and how many requests may wait for them.

    Ray Serve adds a replica when more than `target_ongoing_requests` a replica are under way. A replica takes
    `max_ongoing_requests` at once, several batches: while it is full, the proxy asks again at growing
    intervals, and its models would idle. `max_queued_requests` more wait, and the rest is answered by 503
    and `Retry-After: retry_after_s`.
    """

    min_replicas: int = 1
    max_replicas: int = 1
    target_ongoing_requests: float = 8.0
    max_ongoing_requests: int = 64
    max_queued_requests: int = 16
    retry_after_s: float = 1.0
    num_cpus: float = 1.0
    num_gpus: float = 0.0


@dataclass
class ServeConfig:
    """The served calibrator. `bundle` to `image_size` mean what they mean for `calibrate`.

    Attributes:
        batch_size: faces of a full device batch; a smaller one is padded to the next size in which all
            answers are the same to the bit.
        batch_wait_ms: how long an idle device waits for a second face.
        host: who may ask. HTTP listens on this address; Ray's gRPC proxy listens on all, so that with a
            loopback address here gRPC callers from elsewhere are refused.
        grpc_port: 0 for no gRPC.
        token_env: the environment variable that holds the bearer token; empty for none.
    """

    bundle: str = "fer64"
    voters: list[str] = field(default_factory=lambda: ["feranno", "residual", "separable"])
    experts: dict[str, ExpertConfig] = field(default_factory=dict)
    vote: VoteConfig = field(default_factory=VoteConfig)
    image_size: int | None = None

    batch_size: int = 8
    batch_wait_ms: float = 5.0
    num_threads: int = 1
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    replicas: ReplicasConfig = field(default_factory=ReplicasConfig)

    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int = 9000
    request_timeout_s: float = 30.0
    token_env: str = ""
