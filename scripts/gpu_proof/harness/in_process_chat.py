"""verifiers' `null` harness without a process for each answer: one question, one answer, no tools.

For measuring a trainer's pace. A process for each of 128 answers takes whatever CPUs are free, so that a step
takes two seconds or twenty; asked for here, by one client in the environment's own process, answers take what
vLLM needs. Its folder is to be on `PYTHONPATH`: a harness is found by the name of its module.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from openai import AsyncOpenAI
from verifiers.v1.configs.harness import HarnessConfig
from verifiers.v1.harness import Harness
from verifiers.v1.runtimes import ProgramResult

if TYPE_CHECKING:
    from verifiers.v1.clients import ModelContext
    from verifiers.v1.runtimes import Runtime
    from verifiers.v1.task import TaskData
    from verifiers.v1.trace import Trace

__all__ = ["InProcessChat"]


class InProcessChat(Harness[HarnessConfig]):
    """Asks the interception endpoint of a rollout once, as `null` does."""

    APPENDS_SYSTEM_PROMPT = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: ModelContext,
        trace: Trace,  # noqa: ARG002 - verifiers' signature
        runtime: Runtime,  # noqa: ARG002
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],  # noqa: ARG002
        data: TaskData,
    ) -> ProgramResult:
        """Ask; the endpoint keeps what is answered."""
        system, prompt = self.resolve_text_prompt(data)
        said = [("system", system), ("user", prompt)]
        messages: Any = [{"role": role, "content": text} for role, text in said if text]
        asking = _client().with_options(base_url=endpoint, api_key=secret)
        answer = await asking.chat.completions.create(model=ctx.model, messages=messages)
        return ProgramResult(0, answer.choices[0].message.content or "", "")


@cache
def _client() -> AsyncOpenAI:
    """One client, whose connections all rollouts share."""
    return AsyncOpenAI(base_url="http://localhost", api_key="none", max_retries=5)
