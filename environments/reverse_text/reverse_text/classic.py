"""The classic verifiers API (`verifiers<0.4`): a single-turn environment with one rubric."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reverse_text import scoring
from reverse_text.dataset import DEFAULT_DATASET, DEFAULT_SPLIT, load_prompts

if TYPE_CHECKING:
    from datasets import Dataset
    from verifiers.legacy import Environment


def load_environment(
    dataset_name: str = DEFAULT_DATASET,
    dataset_split: str = DEFAULT_SPLIT,
    system_prompt: str | None = scoring.SYSTEM_PROMPT,
) -> Environment:
    """Build the environment for `vf-eval` and trainers that use the classic API.

    Args:
        dataset_name: A hub id, a local folder or file, or `sample`; see
            `reverse_text.dataset.load_prompts`.
        dataset_split: The split to load; slices such as `train[:100]` work.
        system_prompt: The system prompt; None sends the text alone.

    Returns:
        A single-turn environment. Its data set is read on first use, not here.

    Raises:
        ImportError: The installed verifiers has the v1 API only.
    """
    import verifiers

    try:
        import verifiers.legacy as vf
    except ModuleNotFoundError as error:
        if error.name != "verifiers.legacy":
            raise
        raise ImportError(
            f"load_environment needs the classic verifiers API, which verifiers "
            f"{verifiers.__version__} no longer has\n"
            "hint: use the taskset `reverse-text` (for example `vf-eval reverse-text`), or "
            "install 'verifiers>=0.3.1,<0.4'"
        ) from error

    def build_dataset() -> Dataset:
        from datasets import Dataset

        return Dataset.from_list(
            [
                {"question": prompt, "answer": scoring.reverse(prompt), "info": {}}
                for prompt in load_prompts(dataset_name, dataset_split)
            ]
        )

    parser = vf.Parser(extract_fn=scoring.extract_answer)

    def lcs_reward_func(
        completion: vf.Messages,
        answer: str,
        **_: Any,  # noqa: ANN401 - verifiers passes the rest of the rollout's state
    ) -> float:
        """Similarity of the parsed completion and the reversed prompt."""
        return scoring.similarity(parser.parse_answer(completion) or "", answer)

    return vf.SingleTurnEnv(
        dataset=build_dataset,
        system_prompt=system_prompt,
        parser=parser,
        rubric=vf.Rubric(funcs=[lcs_reward_func], weights=[1.0], parser=parser),
    )
