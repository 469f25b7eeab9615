"""A model behind an OpenAI-compatible endpoint (vLLM, SGLang, llama.cpp, a provider): many requests at once.

Why not `HttpRequestProcessorConfig` of `ray.data.llm`: in Ray 2.60 a row without an answer ends the run, with
its whole payload in the message, and cannot become a counted reject; an actor sends its requests one after
the other; answers have no limit; and blocks are cut anew, but a block is a shard. Its vLLM processor has
the last fault as well, and wants vLLM in every actor: `vllm serve` behind this client is the same engine.
"""

import asyncio
import base64
import json
import random
from collections.abc import Sequence
from typing import Any

import aiohttp
from pydantic import SecretStr

from synfer_ray.config import LanguageModelConfig
from synfer_ray.errors import InputError
from synfer_ray.language.questions import NO_ANSWER, REFUSED_REQUEST, UNFINISHED, Answer, Question

MAX_BYTES = 64 << 10
"""Of one answer with everything around it."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before the first retry, and at most before any; between them the pause doubles."""
OVERLOADED = (408, 409, 425, 429)
MISCONFIGURED = (401, 403, 404, 405)


class Failure(Exception):
    """No answer this time; `pause` is what the server asks to wait, in seconds."""

    def __init__(self, message: str, pause: float = 0.0) -> None:
        super().__init__(message)
        self.pause = pause


class Endpoint:
    """Asks `POST url/chat/completions`.

    Args:
        key: sent as a bearer token to the configured URL, and to no other.
    """

    def __init__(self, config: LanguageModelConfig, key: SecretStr) -> None:
        self.config = config
        self.key = key
        self.url = config.url.rstrip("/") + "/chat/completions"
        self.in_vain = 0

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Returns one answer for each question; one that fails in every attempt has a fault.

        Raises:
            InputError: the endpoint wants another key, has no such model, or takes none of several questions.
            ConnectionError: nobody is there, or none of several questions gets an answer; with many questions
                this shows before all have waited.
        """
        answers = asyncio.run(self._ask_all(questions))
        if len(answers) > 1 and len(faults := {answer.fault for answer in answers}) == 1:
            message = f"{self}: {answers[0].detail}"
            if NO_ANSWER in faults:
                raise ConnectionError(f"{message}, for all of {len(answers)} questions")
            if REFUSED_REQUEST in faults:
                raise InputError(message)
        return answers

    def __str__(self) -> str:
        return f"model {self.config.model!r} at {self.config.url}"

    async def _ask_all(self, questions: Sequence[Question]) -> list[Answer]:
        secret = self.key.get_secret_value()
        slots = asyncio.Semaphore(self.config.concurrency)
        async with aiohttp.ClientSession(
            headers={"authorization": f"Bearer {secret}"} if secret else {},
            timeout=aiohttp.ClientTimeout(total=self.config.timeout),
            connector=aiohttp.TCPConnector(limit=self.config.concurrency),
        ) as session:
            return await asyncio.gather(*(self._ask(session, slots, question) for question in questions))

    async def _ask(
        self, session: aiohttp.ClientSession, slots: asyncio.Semaphore, question: Question
    ) -> Answer:
        pause = FIRST_PAUSE
        for attempts_left in reversed(range(self.config.retries + 1)):
            try:
                async with slots:
                    answer = await self._attempt(session, question)
                self.in_vain = 0
                return answer
            except (Failure, TimeoutError, aiohttp.ClientError) as failure:
                if not attempts_left and isinstance(failure, aiohttp.ClientConnectorError):
                    raise ConnectionError(f"{self} is out of reach: {failure}") from failure
                if not attempts_left:
                    detail = str(failure) or f"silent for {self.config.timeout} s"
                    self.in_vain += 1
                    if self.in_vain > self.config.concurrency:
                        raise ConnectionError(
                            f"{self}: {detail}, for {self.in_vain} questions in a row"
                        ) from None
                    return Answer(fault=NO_ANSWER, detail=detail)
                asked = getattr(failure, "pause", 0.0)
            await asyncio.sleep(min(max(asked, pause * random.uniform(0.5, 1.0)), LONGEST_PAUSE))
            pause *= 2
        raise AssertionError("the last attempt returns or raises")

    async def _attempt(self, session: aiohttp.ClientSession, question: Question) -> Answer:
        body = self._request(question)
        async with session.post(self.url, json=body, allow_redirects=False) as response:
            content = await _read(response)
            if response.status == 200:
                return _answer(content)
            message = f"HTTP {response.status} {self._readable(content)}".rstrip()
            if response.status in OVERLOADED or response.status >= 500:
                raise Failure(message, _seconds(response.headers.get("retry-after", "")))
            if response.status in MISCONFIGURED or response.status < 400:
                raise InputError(f"{self}: {message}")
            return Answer(fault=REFUSED_REQUEST, detail=message)

    def _request(self, question: Question) -> dict[str, Any]:
        parts: list[dict[str, Any]] = [{"type": "text", "text": question.text}]
        if question.image is not None:
            data = base64.b64encode(question.image).decode()
            parts.insert(0, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}})
        return {
            "model": self.config.model,
            "messages": [{"role": "user", "content": parts if question.image else question.text}],
            "max_tokens": self.config.max_new_tokens,
            "temperature": self.config.temperature,
            "top_p": self.config.top_p,
            "seed": question.seed,
        }

    def _readable(self, content: bytes) -> str:
        """The start of what the server says; some repeat the key."""
        text = content.decode(errors="replace")
        if secret := self.key.get_secret_value():
            text = text.replace(secret, "***")  # before it is cut, or a part of the key would stay
        return " ".join(text.split())[:200]


async def _read(response: aiohttp.ClientResponse) -> bytes:
    content = b""
    async for chunk in response.content.iter_chunked(1 << 16):
        content += chunk
        if len(content) > MAX_BYTES:
            raise Failure(f"an answer of more than {MAX_BYTES >> 10} KiB")
    return content


def _answer(content: bytes) -> Answer:
    try:
        choice = json.loads(content)["choices"][0]
        message = choice["message"]
        text = message["content"] if message["content"] is not None else message["refusal"]
        if not isinstance(text, str):
            raise TypeError(f"{type(text).__name__} in place of a text")
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise Failure(f"an answer that cannot be read: {error!r:.100}") from error
    return Answer(text, UNFINISHED if choice.get("finish_reason") == "length" else "")


def _seconds(header: str) -> float:
    """The `Retry-After` header, unless it is a date."""
    return float(header) if header.isdecimal() else 0.0
