"""Real faces into training data."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from synfer_ray.config.language import LanguageModelConfig
from synfer_ray.config.pools import PoolConfig


@dataclass
class FETextConfig:
    """FEText from a pile of faces: where they are, what their labels mean, and how they are prepared.

    Attributes:
        input: a folder, file or glob pattern of images, Parquet files or WebDataset tars; any fsspec URI.
        source: name of the collection; with `license` it stands in every row.
        label_order: classes of integer labels: a known order (`fer2013`) or names with commas; empty if the
            Parquet file says. `vote_order` is the same for the vote column.
        label_votes: as how many further votes the label counts where there are votes: 0 trusts these alone.
        au_labeler: `mediapipe` (with `landmarker_model`), `bundle` (the network in `bundle`), `open_graph_au`
            (with `au_checkpoint`, a released file of any backbone and stage) or `none`.
        ambiguous_units: `keep` or `unknown`: what becomes of OpenGraphAU's AUL12 and AUR12, which its code
            reads from the node of AU11.
        align: move the face to where `crop` puts it, a key of `faces.alignment.CROPS`; needs
            `landmarker_model`.
        no_face: `reject`, or `keep` the whole image.
        many_faces: which of several faces counts: certain, largest, central, or `reject` the image.
        min_sharpness: in the units of `faces.images.sharpness`; photographs have 0.2 and more.
        captioner: the template grammar, or a vision-language model: `captioner.kind`, `captioner.model`.
        upscaler: `lanczos` or the path of a spandrel checkpoint; networks run on a GPU if the pool has one.
        shard_rows: rows of the input that are read, written and committed together.
    """

    input: str = MISSING
    output: str = MISSING
    image_size: int = 64
    source: str = "faces"
    license: str = "unknown"
    image_column: str = "image"
    label_column: str = ""
    label_order: str = ""
    vote_column: str = ""
    vote_order: str = "ferplus"
    label_votes: float = 0.0
    name_column: str = ""
    au_labeler: str = "mediapipe"
    au_checkpoint: str = ""
    ambiguous_units: str = "keep"
    landmarker_model: str = ""
    bundle: str = "fer64"
    align: bool = True
    crop: str = "fer"
    no_face: str = "reject"
    many_faces: str = "certain"
    min_side: int = 32
    min_sharpness: float = 0.1
    upscaler: str = "lanczos"
    captioner: LanguageModelConfig = field(default_factory=LanguageModelConfig)
    seed: int = 0
    shard_rows: int = 500
    face_pool: PoolConfig = field(default_factory=PoolConfig)
