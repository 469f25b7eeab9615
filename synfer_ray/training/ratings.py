"""What viewers said of generated faces: a CSV file beside the datasets that it rates."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset

from synfer_ray.calibration.wholeness import READINGS
from synfer_ray.errors import InputError, choose


def read_rated(datasets: Sequence[str], ratings: str, columns: Sequence[str]) -> pa.Table:
    """The rated samples of all datasets by `sample_id`, with the wanted `columns` and what viewers said.

    `rating` is their mean and, where the file tells, `readings` the share of them for each of READINGS.

    Args:
        datasets: the folders that `synfer generate` wrote.
        ratings: a CSV file with the columns `sample_id` and `rating`, from 0 (broken) to 1 (whole), and
            perhaps `read_as`, the expression that was read, or `unclear`. Each line is what one viewer says.

    Raises:
        InputError: a dataset or the file is missing or not of this form, a rating is not in [0, 1], a
            reading is unknown, or a sample is in no or several datasets.
    """
    try:
        said = pyarrow.csv.read_csv(ratings)
        rated = said.select(["sample_id", "rating"])
        rated = rated.cast(pa.schema([("sample_id", pa.string()), ("rating", pa.float32())]))
    except (OSError, pa.ArrowException, KeyError) as error:
        raise InputError(f"ratings={ratings}: columns sample_id and rating are needed: {error}") from error
    values = rated["rating"].to_numpy()
    if not (len(values) and ((values >= 0) & (values <= 1)).all()):
        raise InputError(f"ratings={ratings}: every rating is a number from 0 (broken) to 1 (whole)")
    means = rated.group_by("sample_id").aggregate([("rating", "mean")]).sort_by("sample_id")
    names = means["sample_id"].to_pylist()
    samples = pa.concat_tables(samples_of(dataset, names, columns) for dataset in datasets)
    found = samples["sample_id"].to_pylist()
    if unknown := set(names).difference(found):
        raise InputError(f"ratings={ratings}: {len(unknown)} are in no rated dataset, as {min(unknown)}")
    if len(found) > len(names):
        raise InputError(f"rated={[*datasets]}: a sample is in more than one of them")
    samples = samples.sort_by("sample_id").append_column("rating", means["rating_mean"].cast(pa.float32()))
    if "read_as" not in said.column_names:
        return samples
    readings = shares(rated["sample_id"].to_pylist(), said["read_as"].to_pylist())
    return samples.append_column("readings", pa.array([readings[name] for name in names]))


def samples_of(dataset: str, names: Sequence[str], columns: Sequence[str]) -> pa.Table:
    """The samples of a dataset that are among the `names`: `sample_id` and the wanted `columns`.

    Raises:
        InputError: there is no such dataset.
    """
    folder = Path(dataset) / "data"
    if not folder.is_dir():
        raise InputError(f"rated={dataset} is not a dataset of `synfer generate`")
    shards = pyarrow.dataset.dataset(folder, format="parquet")
    return shards.to_table(["sample_id", *columns], filter=pc.field("sample_id").isin(names))


def shares(names: Sequence[str], read_as: Sequence[str]) -> dict[str, list[float]]:
    """For each sample the share of its viewers that read each of READINGS.

    Raises:
        InputError: an unknown reading.
    """
    seen: dict[str, list[str]] = {}
    for name, reading in zip(names, read_as, strict=True):
        seen.setdefault(name, []).append(choose(reading, READINGS, "read_as"))
    return {name: [said.count(reading) / len(said) for reading in READINGS] for name, said in seen.items()}
