"""The task itself: prompt, ground truth, parsing and reward, with the standard library alone.

Both APIs score through this module. Its numbers equal those of the `reverse-text` environment
in https://github.com/PrimeIntellect-ai/verifiers (`environments/reverse_text`).
"""

import re
from difflib import SequenceMatcher

SYSTEM_PROMPT = "Reverse the text character-by-character. Put your answer in <reversed_text> tags."
"""The system prompt; byte for byte upstream's, since models are trained on it."""

_ANSWER = re.compile(r"<reversed_text>(.*?)</reversed_text>", re.DOTALL)


def reverse(text: str) -> str:
    """Return the ground truth for a prompt: its code points in reverse order."""
    return text[::-1]


def extract_answer(completion: str) -> str:
    """Return what a completion answers.

    Args:
        completion: The whole text of the model's reply.

    Returns:
        The text between the first `<reversed_text>` tag and the `</reversed_text>` that closes
        it, without surrounding whitespace; an empty string where there is no such pair.
    """
    match = _ANSWER.search(completion)
    return match.group(1).strip() if match else ""


def similarity(response: str, answer: str) -> float:
    """Return how alike two texts are, from 0.0 to 1.0.

    This is `difflib.SequenceMatcher.ratio`: twice the number of matched characters over the
    total number of characters, and 1.0 for two empty texts. The order of the arguments matters:
    difflib's match is greedy, and its heuristic for popular characters reads the second text.

    Args:
        response: What the model answered.
        answer: The ground truth.
    """
    return SequenceMatcher(None, response, answer).ratio()


def reward(completion: str, answer: str) -> float:
    """Return the reward of a whole completion for the ground truth `answer`."""
    return similarity(extract_answer(completion), answer)
