"""Language models that write the texts: captions of faces, prompts of samples."""

from dataclasses import asdict, dataclass, field
from pathlib import PurePath
from typing import Any

from synfer_ray.config.pools import PoolConfig

TEMPLATE, TRANSFORMERS, ENDPOINT = "template", "transformers", "endpoint"
WRITERS = (TEMPLATE, TRANSFORMERS, ENDPOINT)

SAMPLING = ("kind", "temperature", "top_p", "max_words", "max_new_tokens", "attempts")
COMPUTING = ("batch_size", "dtype", "num_threads")
"""With these the numbers of a `transformers` model may round differently."""


@dataclass
class LanguageModelConfig:
    """Who writes: the template grammar, a model in our actors, or one behind an OpenAI-compatible endpoint.

    Attributes:
        kind: `template`, `transformers` or `endpoint`.
        model: of `transformers` a folder or hub id, `owner/name@revision`; of `endpoint` its name there.
        url: of the endpoint, `http://HOST:8000/v1`. Nothing else is contacted; redirects are not followed.
        token_env: the environment variable that holds the endpoint's API key, if it wants one.
        temperature: 0 takes the likeliest word; above it every row draws with its own seed, within `top_p`.
        max_words: of a text; CLIP reads about 55.
        attempts: how often a row is asked for, each time with another seed, until the answer can be used.
        batch_size: rows at once; this, `dtype` and `num_threads` are of `transformers`.
        concurrency: requests of one actor at the same time, `timeout` seconds each, with `retries` after
            overload, failure or silence; these are of `endpoint`.
        answers: a folder or URI for all answers, which runs may share; `answers` in the output if empty.
        pool: the actors that ask.
    """

    kind: str = TEMPLATE
    model: str = ""
    url: str = ""
    token_env: str = ""
    temperature: float = 0.7
    top_p: float = 0.95
    max_words: int = 50
    max_new_tokens: int = 160
    attempts: int = 2
    batch_size: int = 8
    dtype: str = "float32"
    num_threads: int = 1
    concurrency: int = 8
    timeout: float = 60.0
    retries: int = 4
    answers: str = ""
    pool: PoolConfig = field(default_factory=lambda: PoolConfig(min_actors=1))

    @property
    def is_model(self) -> bool:
        """Whether a model writes, and not the template grammar."""
        return self.kind != TEMPLATE

    @property
    def writer(self) -> str:
        """The name that stands in the rows: without the folders of this machine."""
        return PurePath(self.model).name if self.model.startswith(("/", ".", "~")) else self.model

    def deciding(self) -> dict[str, Any]:
        """Returns the settings that the texts depend on; none for the template grammar.

        An endpoint may move to another address, or be asked faster, while a run is continued. The files of a
        `transformers` model have a fingerprint of their own, wherever they lie.
        """
        if not self.is_model:
            return {}
        settings = asdict(self)
        keys = COMPUTING if self.kind == TRANSFORMERS else ("model",)
        return {key: settings[key] for key in (*SAMPLING, *keys)}
