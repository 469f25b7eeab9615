"""What viewers said of generated faces: a CSV file beside the dataset that it rates."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset

from synfer_ray.errors import InputError


def read_rated(dataset: str, ratings: str, columns: Sequence[str]) -> pa.Table:
    """The rated samples of a dataset: `sample_id`, the wanted `columns` and `rating`, by `sample_id`.

    Args:
        dataset: the folder that `synfer generate` wrote.
        ratings: a CSV file with the columns `sample_id` and `rating`, from 0 (broken) to 1 (whole).

    Raises:
        InputError: the dataset or the file is missing or not of this form, a rating is not in [0, 1], or a
            sample is rated twice or is not in the dataset.
    """
    try:
        rated = pyarrow.csv.read_csv(ratings).select(["sample_id", "rating"])
        rated = rated.cast(pa.schema([("sample_id", pa.string()), ("rating", pa.float32())]))
    except (OSError, pa.ArrowException, KeyError) as error:
        raise InputError(f"ratings={ratings}: columns sample_id and rating are needed: {error}") from error
    values = rated["rating"].to_numpy()
    if not (len(values) and ((values >= 0) & (values <= 1)).all()):
        raise InputError(f"ratings={ratings}: every rating is a number from 0 (broken) to 1 (whole)")
    names = rated["sample_id"].to_pylist()
    if len(set(names)) < len(names):
        raise InputError(f"ratings={ratings} rates a sample twice")
    if not (Path(dataset) / "data").is_dir():
        raise InputError(f"rated={dataset} is not a dataset of `synfer generate`")
    shards = pyarrow.dataset.dataset(Path(dataset) / "data", format="parquet")
    samples = shards.to_table(["sample_id", *columns], filter=pc.field("sample_id").isin(names))
    if len(samples) < len(rated):
        unknown = set(names).difference(samples["sample_id"].to_pylist())
        raise InputError(f"ratings={ratings}: {len(unknown)} are not in {dataset}, as {min(unknown)}")
    return samples.sort_by("sample_id").append_column("rating", rated.sort_by("sample_id")["rating"])
