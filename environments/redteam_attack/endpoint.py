"""An OpenAI-compatible endpoint as the target of `redteam-attack`."""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import openai
import verifiers as vf

from environments.redteam_attack.defender import spoken

ASKING_SECONDS = 5.0
"""How long `unreachable` waits."""


@dataclass
class Endpoint:
    """Where the defender lives.

    Args:
        url: up to and with `/v1`.
        model: its name there.
        key_variable: environment variable with the API key; none is sent when empty.
        timeout: seconds a request may take.
        retries: times that the client asks again after a failure.
    """

    url: str
    model: str
    key_variable: str = ""
    timeout: float = 60.0
    retries: int = 2
    max_tokens: int = 48
    temperature: float = 0.7
    _clients: dict[Any, openai.AsyncOpenAI] = field(default_factory=dict, init=False, repr=False)

    async def reply(self, messages: list[Any], state: Any) -> str:
        """See `Defender`; `state` is not needed."""
        try:
            answer = await self._client().chat.completions.create(
                model=self.model,
                messages=[message.model_dump(include={"role", "content"}) for message in messages],
                max_tokens=self.max_tokens,
                temperature=self.temperature,
            )
        except openai.OpenAIError as problem:
            if isinstance(problem, openai.BadRequestError) and "context length" in str(problem):
                raise vf.OverlongPromptError(str(problem)) from problem
            raise vf.ModelError(f"{self.url}: {type(problem).__name__}: {problem}") from problem
        if not answer.choices:
            raise vf.ModelError(f"{self.url}: an answer without choices")
        return spoken(answer.choices[0].message.content or "")

    def unreachable(self) -> str | None:
        """Ask for its models. Returns why a run could not use it, or None where it answers."""
        with openai.OpenAI(**self._settings() | {"timeout": ASKING_SECONDS, "max_retries": 0}) as client:
            try:
                client.models.list()
            except (
                openai.APIConnectionError,
                openai.AuthenticationError,
                openai.PermissionDeniedError,
            ) as problem:
                return f"{self.url} does not answer: {type(problem).__name__}: {problem}"
            except openai.OpenAIError:
                pass  # an endpoint without a list of its models, but an endpoint
        return None

    def _client(self) -> openai.AsyncOpenAI:
        """One for each event loop: connections of a loop that was closed cannot be used in the next."""
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            self._clients = {loop: openai.AsyncOpenAI(**self._settings())}
        return self._clients[loop]

    def _settings(self) -> dict[str, Any]:
        return {
            "api_key": os.environ[self.key_variable] if self.key_variable else "none",
            "base_url": self.url,
            "timeout": self.timeout,
            "max_retries": self.retries,
        }


def endpoint_of(table: Mapping[str, Any], *, max_tokens: int, temperature: float) -> Endpoint:
    """The endpoint that `args.endpoint` describes.

    Raises:
        ValueError: an unknown or missing key, one of the wrong type, or an environment variable that is not set.
    """
    types: dict[str, Any] = {
        "url": str,
        "model": str,
        "key_variable": str,
        "timeout": (int, float),
        "retries": int,
    }
    for name, value in table.items():
        if name not in types:
            raise ValueError(
                f"endpoint has no key {name!r}; valid: {', '.join(types)}. An API key stays out of the file: "
                "key_variable names the environment variable that holds it"
            )
        if not isinstance(value, types[name]) or isinstance(value, bool):
            raise ValueError(f"endpoint.{name} cannot be {value!r}")
    for name in ("url", "model"):
        if not table.get(name):
            raise ValueError(f"target = 'endpoint' needs endpoint.{name}")
    if not str(table["url"]).startswith(("http://", "https://")):
        raise ValueError(f"endpoint.url must begin with http:// or https://, not {table['url']!r}")
    if table.get("timeout", 1) <= 0 or table.get("retries", 0) < 0:
        raise ValueError("endpoint.timeout must be positive, endpoint.retries at least 0")
    variable = table.get("key_variable", "")
    if variable and not os.environ.get(variable):
        raise ValueError(f"endpoint.key_variable: the environment variable {variable} is not set; export it")
    return Endpoint(**dict(table), max_tokens=max_tokens, temperature=temperature)
