"""The v1 verifiers API: a taskset whose tasks are answered in one turn."""

import verifiers.v1 as vf

from reverse_text import scoring
from reverse_text.dataset import DEFAULT_DATASET, DEFAULT_SPLIT, load_prompts


class ReverseTextData(vf.TaskData):
    """One text to reverse."""

    answer: str
    """The ground truth: the prompt reversed."""


class ReverseTextTask(vf.Task[ReverseTextData]):
    """Reverse one text; the reward is read off the trace and needs no runtime."""

    @vf.stop
    async def single_turn(self, trace: vf.Trace) -> bool:
        """Stop after the first reply."""
        return bool(trace.num_turns >= 1)

    @vf.reward(weight=1.0)
    async def lcs(self, trace: vf.Trace) -> float:
        """Similarity of the parsed reply and the reversed prompt."""
        return scoring.reward(trace.last_reply or "", self.data.answer)


class ReverseTextConfig(vf.TasksetConfig):
    """Which texts to load."""

    dataset_name: str = DEFAULT_DATASET
    """A hub id, a local folder or file with a `prompt` column, or `sample` (bundled texts)."""
    dataset_split: str = DEFAULT_SPLIT
    """The split to load; slices such as `train[:100]` work."""


class ReverseTextTaskset(vf.Taskset[ReverseTextTask, ReverseTextConfig]):
    """The texts of one data set as tasks."""

    def load(self) -> list[ReverseTextTask]:
        """Read the data set and return a task for each text, in its order.

        Raises:
            reverse_text.dataset.DatasetError: The data set cannot be had or read.
        """
        prompts = load_prompts(self.config.dataset_name, self.config.dataset_split)
        return [
            ReverseTextTask(
                ReverseTextData(
                    idx=index,
                    prompt=prompt,
                    system_prompt=scoring.SYSTEM_PROMPT,
                    answer=scoring.reverse(prompt),
                ),
                self.config.task,
            )
            for index, prompt in enumerate(prompts)
        ]
