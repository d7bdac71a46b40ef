"""A verifiers v1 harness that runs in this process: it posts the conversation to the endpoint it is given.

v1's own harnesses start a program for each rollout, and install what that needs from the package index.
"""

import json
import sys
from typing import Any

import httpx
import verifiers.v1 as vf
from verifiers.v1.configs.harness import HarnessConfig
from verifiers.v1.harness import Harness
from verifiers.v1.runtimes import ProgramResult

__all__ = ["ConversationHarness"]

HARNESS_ID = "rezero-conversation"
"""v1 imports a harness by its id, and knows no modules inside packages: this one is there under a name of its own."""
sys.modules[HARNESS_ID.replace("-", "_")] = sys.modules[__name__]


class ConversationHarness(Harness[HarnessConfig]):
    """One model call a segment: the task's prompt, then whatever the environment answers. Offers no tools."""

    APPENDS_SYSTEM_PROMPT = True
    SUPPORTS_RESUME = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: Any,
        trace: vf.Trace,
        runtime: Any,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: vf.TaskData,
        **rest: Any,
    ) -> ProgramResult:
        system, prompt = self.resolve_prompt(data)
        messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        if isinstance(prompt, str):
            messages.append({"role": "user", "content": prompt})
        else:
            messages += [message.model_dump(exclude_none=True) for message in prompt or []]
        async with httpx.AsyncClient(timeout=None, trust_env=False) as client:
            response = await client.post(
                f"{endpoint}/chat/completions",
                headers={"Authorization": f"Bearer {secret}"},
                content=json.dumps({"model": ctx.model, "messages": messages}),
            )
        if response.status_code != 200:
            return ProgramResult(exit_code=1, stdout="", stderr=response.text[:2000])
        return ProgramResult(exit_code=0, stdout="", stderr="")
