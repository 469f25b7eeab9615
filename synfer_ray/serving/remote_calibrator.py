"""The vote as a stage that asks the service: what the voter and the calibrator do together, elsewhere."""

import os

import pyarrow as pa
from pydantic import SecretStr

from synfer_ray.config import CalibrateConfig
from synfer_ray.errors import InputError
from synfer_ray.faces.images import BadImage, decode_image
from synfer_ray.remote.model import RequestRefused
from synfer_ray.serving.client import Calibration, CalibratorClient
from synfer_ray.stages.model_stage import model_stage
from synfer_ray.stages.sample_rows import VOTE, Row, accepted, rejection, sample_rows, timed
from synfer_ray.storage.schema import VOTER
from synfer_ray.taxonomy.expressions import EXPRESSIONS


@model_stage
class RemoteCalibrator:
    """A Ray actor that sends its rows' images to a served calibrator, several requests at once.

    Args:
        fingerprint: of the service that the run began with.

    Raises:
        InputError: no calibrator answers, or it wants another token.
    """

    def __init__(self, config: CalibrateConfig, token: SecretStr, fingerprint: str) -> None:
        self.client = connect(config, token)
        self.voters = config.voters
        self.fingerprint = fingerprint

    def __call__(self, table: pa.Table) -> pa.Table:
        """Settles the rows that are not rejected; an image that cannot be read is not sent.

        Raises:
            InputError: the service refuses the requests, or has other models by now.
            ConnectionError: it does not answer.
        """
        rows = table.to_pylist()
        with timed(rows, VOTE):
            self.settle(rows)
        return sample_rows(rows, self.voters)

    def settle(self, rows: list[Row]) -> None:
        """Has the service judge the rows that are not rejected."""
        for row in accepted(rows):
            check_image(row)
        alive = accepted(rows)
        labels = [
            None if row["assigned_label"] is None else EXPRESSIONS[row["assigned_label"]] for row in alive
        ]
        try:
            answers = self.client.calibrate_each([row["image"]["bytes"] for row in alive], labels)
        except RequestRefused as refusal:
            raise InputError(str(refusal)) from refusal
        if (now := self.client.fingerprint()) != self.fingerprint:
            raise InputError(
                f"the server's models changed during this run, {self.fingerprint} to {now}: take a new output"
            )
        for row, answer in zip(alive, answers):
            row |= settled(answer) if isinstance(answer, Calibration) else refused(answer)


def bearer_token(config: CalibrateConfig) -> SecretStr:
    """Returns the token in the environment, possibly empty; it travels to the actor, but into no log."""
    return SecretStr(os.environ.get(config.requests.token_env, ""))


def connect(config: CalibrateConfig, token: SecretStr) -> CalibratorClient:
    """Opens the client that the settings describe.

    Raises:
        InputError: no calibrator answers at the URL, or it wants a token.
    """
    requests = config.requests
    return CalibratorClient(
        config.server,
        token.get_secret_value() or None,
        requests.timeout,
        requests.retries,
        requests.concurrency,
        requests.batch_size,
    )


def check_image(row: Row) -> None:
    """Rejects a row whose image cannot be decoded."""
    try:
        decode_image(row["image"]["bytes"])
    except BadImage as error:
        row |= rejection("decode", error.reason, error.detail) | {"image": None}


def settled(answer: Calibration) -> Row:
    """Returns the columns that the service's answer fills."""
    columns: Row = {
        "label_probs": list(answer.probabilities.values()),
        **{f"{VOTER}{name}": list(opinion.values()) for name, opinion in answer.voters.items()},
    }
    if answer.decision == "reject":
        detail = f"{answer.label} {answer.probabilities[answer.label]:.2f}"
        return columns | rejection("vote", answer.reason, detail)
    return columns | {
        "label": EXPRESSIONS.index(answer.label),
        "agreement": answer.agreement,
        "decision": answer.decision,
    }


def refused(refusal: RequestRefused) -> Row:
    """Returns the columns of a row whose image the service does not take, for instance for its size."""
    return rejection("server", "refused", str(refusal))
