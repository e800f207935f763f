"""What can go wrong, as a user sees it.

Every error says what happened and with which value; `hint` is the way out, printed on a line of its
own. Errors are raised anywhere and printed once, in `medarc_plugin.cli`. Whatever is not in this tree
is a bug, and keeps its traceback.

    MedarcError                    exit code 2
    ├── UsageError                 the command line, a config value, an option
    │   └── OptionError            one option's value; knows the option and where the value came from
    ├── HostError                  prime-rl itself
    │   ├── HostNotFoundError      no prime-rl anywhere we look
    │   ├── HostBrokenError        an interpreter that cannot run, an import that fails
    │   ├── UnknownShapeError      a prime-rl whose config schema is not known here
    │   └── ConfigRejectedError    prime-rl's own parser said no; carries its words, whole
    ├── PluginError                a plugin failed or is at odds with another; names it
    ├── RenderError                a template that cannot be rendered
    ├── RunDirectoryError          the run directory is taken, unwritable or not a run
    ├── PreflightError             problems found before anything was written
    ├── SlurmError                 a SLURM command failed; carries argv, exit code and its words
    │   └── SubmissionError        sbatch refused or is missing; the files are left in place
    └── SandboxError               the private SLURM could not be started or stopped

`EndedError` stands beside it: a signal to end, as KeyboardInterrupt is one.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medarc_plugin.models import Problem


class MedarcError(Exception):
    """The root of everything that is raised on purpose.

    Args:
        message: What happened, with the offending value.
        hint: The way out, in one or two sentences, without the word "hint".

    Attributes:
        exit_code: What the process ends with when nobody handles the error.
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(MedarcError):
    """The command line or a configuration value cannot be used."""


class OptionError(UsageError):
    """One option has a value that cannot be used.

    Args:
        option: The option as a user writes it, `--time`.
        message: What is wrong with the value.
        source: Where the value came from: `command line`, `[slurm]`, `SBATCH_TIMELIMIT`.
        hint: The way out.
    """

    def __init__(
        self, option: str, message: str, *, source: str | None = None, hint: str | None = None
    ) -> None:
        origin = f" (from {source})" if source else ""
        super().__init__(f"{option}: {message}{origin}", hint=hint)
        self.option = option
        self.source = source


class HostError(MedarcError):
    """Something about prime-rl itself."""


class HostNotFoundError(HostError):
    """No prime-rl was found in any of the places where it is looked for."""


class HostBrokenError(HostError):
    """prime-rl was found, but its interpreter or its packages do not work."""


class UnknownShapeError(HostError):
    """prime-rl's config schema has a shape that this version does not know.

    Args:
        message: What happened.
        nearest: The known shape that it is nearest to.
        hint: The way out.
    """

    def __init__(self, message: str, *, nearest: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.nearest = nearest


class ConfigRejectedError(HostError):
    """prime-rl's own parser refused the configuration; the message is its text, whole."""


class PluginError(MedarcError):
    """A plugin raised, or two plugins claim the same thing.

    Args:
        plugin: The plugin's name as the plugin manager knows it.
        message: What happened.
        hint: The way out; by default how to leave the plugin out.
    """

    def __init__(self, plugin: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(
            f"plugin {plugin!r}: {message}",
            hint=hint or f"MEDARC_DISABLE_PLUGINS={plugin} leaves it out",
        )
        self.plugin = plugin


class RenderError(MedarcError):
    """A template could not be rendered."""


class RunDirectoryError(MedarcError):
    """The run directory cannot take this run."""


class PreflightError(MedarcError):
    """Checks found fatal problems before anything was written or submitted.

    Args:
        problems: All that was found, what is not fatal too.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        fatal = [problem for problem in problems if problem.fatal]
        hints = dict.fromkeys(problem.hint for problem in fatal if problem.hint)
        message = "\n".join(f"{problem.check}: {problem.message}" for problem in fatal)
        super().__init__(message, hint="; ".join(hints) or None)
        self.problems = tuple(problems)


class SlurmError(MedarcError):
    """A SLURM command failed or could not be run."""


class SubmissionError(SlurmError):
    """A submission did not go through; the files of the run are left in place.

    Args:
        message: What happened.
        hint: The way out.
        unsettled: Nobody can say whether there is a job.
        silent: SLURM did not answer for as long as a launch waits for it.
    """

    def __init__(
        self, message: str, *, hint: str | None = None, unsettled: bool = False, silent: bool = False
    ) -> None:
        super().__init__(message, hint=hint)
        self.unsettled = unsettled
        self.silent = silent


class SandboxError(MedarcError):
    """The private SLURM could not be started, stopped or reached."""


class EndedError(BaseException):
    """SIGTERM or SIGHUP: this process is to end, in order. Nobody but the command line catches it for good.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number
