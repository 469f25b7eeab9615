"""The calibrator behind every entrance: requests become faces, faces verdicts, verdicts answers."""

import asyncio
import base64
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from threading import Thread
from typing import Any

import numpy as np
from PIL import Image

from synfer_ray.config import ServeConfig
from synfer_ray.faces.images import encode_image
from synfer_ray.reporting.overlays import heat_overlay
from synfer_ray.serving import contract
from synfer_ray.serving.access import Access
from synfer_ray.serving.device_queue import DeviceQueue
from synfer_ray.serving.ensemble import Ensemble, Verdict
from synfer_ray.serving.faces import Face, check_count, face_of_file, faces_of_tensors
from synfer_ray.serving.metrics import Metrics
from synfer_ray.serving.oip.request import InferRequest
from synfer_ray.serving.oip.tensors import Tensor, bytes_array
from synfer_ray.serving.refusal import Refusal, bad_request
from synfer_ray.stages.attention_overlay import SIDE
from synfer_ray.storage.bundle import FERANNO
from synfer_ray.taxonomy.expressions import EXPRESSIONS

logger = logging.getLogger("ray.serve")

SWITCH_INTERVAL = 5e-4
"""Seconds after which the event loop hands the interpreter back. The device thread gives it up with each of
its hundreds of tensor operations, and Python's usual 5 ms would make it wait as often."""


class CalibratorService:
    """One replica's models, with the queue in front of them.

    Args:
        models: fingerprints of the models, for the metadata.

    Raises:
        InputError: a model is missing, damaged or described wrongly.
    """

    def __init__(self, config: ServeConfig, models: Mapping[str, str | None]) -> None:
        self.config = config
        self.models = models
        self.access = Access(config.token_env, config.host)
        self.metrics = Metrics()
        self.ensemble = Ensemble(config)
        sys.setswitchinterval(SWITCH_INTERVAL)
        self.queue: DeviceQueue[Face, Verdict] = DeviceQueue(
            self._ask, self.ensemble.batch_size, config.batch_wait_ms / 1000
        )
        self.quickening = Thread(target=self.ensemble.quicken, name="quicken", daemon=True)
        self.quickening.start()

    async def infer(self, request: InferRequest) -> list[Tensor]:
        """Answers an inference request by the tensors it wants.

        Raises:
            Refusal: the request does not fit the model.
        """
        names = contract.wanted_outputs(request.outputs, self.config)
        attention = self._attention(contract.ATTENTION in names)
        faces = await asyncio.to_thread(
            faces_of_tensors, request.inputs, self.ensemble.image_size, self.config.limits
        )
        faces = [replace(face, attention=attention) for face in faces]
        verdicts = await self.judge(faces)
        columns: dict[str, Any] = {
            "label": bytes_array([verdict.label.encode() for verdict in verdicts]),
            "probabilities": np.stack([verdict.probabilities for verdict in verdicts]),
            "voters": np.stack([verdict.votes for verdict in verdicts]),
            "agreement": np.array([verdict.agreement for verdict in verdicts], dtype=np.float32),
            "decision": bytes_array([verdict.decision.encode() for verdict in verdicts]),
            "reason": bytes_array([verdict.reason.encode() for verdict in verdicts]),
        }
        if attention:
            columns[contract.ATTENTION] = bytes_array(await asyncio.to_thread(overlays, faces, verdicts))
        return [Tensor(name, columns[name]) for name in names]

    async def calibrate(
        self, files: Sequence[tuple[str, bytes]], labels: Sequence[str], attention: bool
    ) -> list[dict[str, Any]]:
        """Answers for people: files by name, with their labels, an empty one for none.

        Raises:
            Refusal: a file is no image that we read, a label is no expression, or there are too many files.
        """
        check_count(len(files), self.config.limits)
        attention = self._attention(attention)
        faces = await asyncio.to_thread(self._faces, files, labels, attention)
        verdicts = await self.judge(faces)
        results = [{"name": name, **self._plain(verdict)} for (name, _), verdict in zip(files, verdicts)]
        if attention:
            for result, overlay in zip(results, await asyncio.to_thread(overlays, faces, verdicts)):
                result[contract.ATTENTION] = base64.b64encode(overlay).decode()
        return results

    async def judge(self, faces: Sequence[Face]) -> list[Verdict]:
        """Has the models judge faces, together with those of other requests.

        Raises:
            Refusal: (503) the models failed.
        """
        try:
            return await asyncio.gather(*(self.queue(face) for face in faces))
        except Exception as error:
            logger.exception("the models failed")
            raise Refusal(503, "the models could not answer; try again later") from error

    async def check(self) -> None:
        """Has the models judge the probe, and compares that with what they said at the start.

        Raises:
            RuntimeError: the answer is another one, by more than what a remote model may round otherwise.
        """
        verdict = await self.queue(self.ensemble.probe)
        if not np.allclose(verdict.votes, self.ensemble.first_answer.votes, atol=1e-3, equal_nan=True):
            raise RuntimeError("the models do not answer as they did at the start")

    def _ask(self, faces: Sequence[Face]) -> list[Verdict]:
        verdicts = self.ensemble(faces)
        asked = [verdict for face, verdict in zip(faces, verdicts) if face is not self.ensemble.probe]
        self.metrics.faces(asked)
        return verdicts

    def _faces(
        self, files: Sequence[tuple[str, bytes]], labels: Sequence[str], attention: bool
    ) -> list[Face]:
        size, max_pixels = self.ensemble.image_size, self.config.limits.max_pixels
        return [
            replace(face_of_file(data, repr(name), label, size, max_pixels), attention=attention)
            for (name, data), label in zip(files, labels)
        ]

    def _attention(self, wanted: bool) -> bool:
        if wanted and FERANNO not in self.config.voters:
            raise bad_request(f"no attention here: {FERANNO} is not among the voters")
        return wanted

    def _plain(self, verdict: Verdict) -> dict[str, Any]:
        def by_expression(values: Any) -> dict[str, float]:
            return dict(zip(EXPRESSIONS, values.tolist()))

        return {
            "label": verdict.label,
            "probabilities": by_expression(verdict.probabilities),
            "voters": {name: by_expression(votes) for name, votes in zip(self.config.voters, verdict.votes)},
            "agreement": verdict.agreement,
            "decision": verdict.decision,
            "reason": verdict.reason,
        }


def overlays(faces: Sequence[Face], verdicts: Sequence[Verdict]) -> list[bytes]:
    """Returns what the models saw of each face, under FERAnno's attention, as PNG files."""
    pictures = []
    for face, verdict in zip(faces, verdicts):
        pixels = ((face.pixels + 1) * 127.5).round().astype(np.uint8).transpose(1, 2, 0)
        side = max(SIDE, len(pixels))
        image = Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS)
        assert verdict.attention is not None
        pictures.append(encode_image(heat_overlay(image, verdict.attention)))
    return pictures
