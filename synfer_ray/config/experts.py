"""Who judges expressions, how faces are cut for them, and how their votes settle a label."""

from dataclasses import dataclass, field


@dataclass
class RemoteModelConfig:
    """A model behind the Open Inference Protocol (Triton, KServe, ours), for experts of kind `triton`.

    `url` is http, https, grpc or grpcs://HOST:PORT; `input_name` and `output_name` may be empty if the
    model has one; `layout` is NCHW, NHWC or `encoded` (PNG files as BYTES); a request carries at most
    `batch_size` images; `token_env` names an environment variable that holds a bearer token.
    """

    url: str = ""
    model: str = ""
    version: str = ""
    input_name: str = ""
    output_name: str = ""
    layout: str = "NCHW"
    batch_size: int = 16
    timeout: float = 30.0
    retries: int = 4
    token_env: str = ""


@dataclass
class ExpertConfig:
    """An expression classifier: what kind of model, where it is, and what it expects.

    Attributes:
        kind: `bundle` (a folder written by our training), `poster_v2`, `apvit` or `ada_df` (a released
            checkpoint), `transformers` (a folder or hub id, `owner/name@revision`), `onnx` (a file) or
            `triton` (a model on a server, described by `remote`). The last two cannot be the guide.
        crop: how the face is cut out for its vote, a key of `faces.alignment.CROPS`; empty for the image as
            it is, which is also what a guide sees.
        input_size: of `onnx` and `triton`, as are `grey`, `mean`, `std` and `output`: pixels are scaled to
            [0, 1], then `mean` and `std` apply, one value or one a channel; `output` is logits or
            probabilities. The other kinds know their own.
        label_order: a name of `taxonomy.expressions.LABEL_ORDERS` or its class names with commas; may be
            empty where the model says it.
    """

    name: str = ""
    kind: str = "bundle"
    path: str = ""
    temperature: float = 1.0
    crop: str = ""
    input_size: int = 64
    grey: bool = False
    mean: list[float] = field(default_factory=lambda: [0.5])
    std: list[float] = field(default_factory=lambda: [0.5])
    label_order: str = ""
    output: str = "logits"
    remote: RemoteModelConfig = field(default_factory=RemoteModelConfig)


@dataclass
class FacesConfig:
    """How faces are found for experts that expect a crop: MediaPipe's `.task` file, and what to do with an
    image without a face (`no_face`: reject or keep) or with several (`many_faces`: certain, largest, central
    or reject).
    """

    landmarker_model: str = ""
    no_face: str = "reject"
    many_faces: str = "certain"


@dataclass
class VoteConfig:
    """How the voters' average settles a label: `on_mismatch` relabel, filter, keep_soft; weights by name.

    `class_weights` are factors by expression on what each voter says, before it is normalised and averaged:
    for expressions that were rarer where the voters learnt than they are here.
    """

    on_mismatch: str = "relabel"
    relabel_threshold: float = 0.6
    min_confidence: float = 0.0
    weights: dict[str, float] = field(default_factory=dict)
    class_weights: dict[str, float] = field(default_factory=dict)
