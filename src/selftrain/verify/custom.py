'''Your own verifier, named as MODULE:FUNCTION: imported because you named it, and for no other reason.

    def verify(text: str, answer: str) -> bool | Verdict:
        """Whether what a model wrote gives the gold answer."""

    data.train.verify: checks:verify        # checks.py in the folder you start from, or any installed module

The contract. `text` is everything the model wrote, `answer` the row's gold answer as the file has it (what follows
`####`). True is right, False wrong; a `selftrain.records.Verdict` says more ("unparsed", what was found, why). The
same arguments must give the same verdict, whatever was judged before. It runs in this process, so it may not change
anything, wait for anything or take long. It must accept each gold answer after `#### ` and each gold rationale, which
`selftrain data check` shows. Strict and flexible verdict are the same.

An exception in it ends the run: a `DataError` names verifier, row and the last lines of the traceback.
'''

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
import typing
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from selftrain.errors import ConfigError, DataError
from selftrain.records import NO_GOLD, Outcome, Problem, Verdict

LAST_LINES = 12  # of a traceback
TEXT_SHOWN = 200
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(?<!\.py):[A-Za-z_]\w*", re.ASCII)

Verdicts = Callable[[Problem, str, Fraction], tuple[Verdict, Verdict]]


def load(name: str) -> Verdicts:
    """The verifier called MODULE:FUNCTION.

    Raises:
        ConfigError: no such name, a module that cannot be imported, no such function.
    """
    if _NAME.fullmatch(name) is None:
        raise ConfigError(
            f"verify: expected MODULE:FUNCTION, got {name!r}.", "For a file checks.py here: verify: checks:verify"
        )
    module_name, _, function_name = name.partition(":")
    function = getattr(_imported(module_name, name), function_name, None)
    if not callable(function):
        raise ConfigError(f"verify: {name}: module {module_name} has no function {function_name!r}.")

    def verdicts(problem: Problem, text: str, tolerance: Fraction) -> tuple[Verdict, Verdict]:
        if problem.answer is None:
            verdict = Verdict("unparsed", None, "no gold answer", source=NO_GOLD)
        else:
            verdict = _as_verdict(name, problem, _called(name, function, problem, text))
        return verdict, verdict

    return verdicts


def _imported(module_name: str, name: str) -> Any:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # after everything that is installed
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigError(f"verify: {name}: its module could not be imported.", _tail(error)) from error
        raise ConfigError(
            f"verify: {name}: there is no module {error.name!r}.",
            f"Start in the folder that holds it (this is {os.getcwd()}), or install it.",
        ) from error
    except Exception as error:  # whatever the user's module does at import
        raise ConfigError(f"verify: {name}: its module could not be imported.", _tail(error)) from error


def _called(name: str, function: Callable[[str, str], Any], problem: Problem, text: str) -> Any:
    try:
        return function(text, problem.answer or "")
    except Exception as error:  # whatever the user's function does
        shown = text if len(text) <= TEXT_SHOWN else f"{text[:TEXT_SHOWN]}..."
        raise DataError(
            f"The verifier {name} raised {type(error).__name__} for row {problem.id} (answer {problem.answer!r}, "
            f"text {shown!r}).",
            _tail(error),
        ) from error


def _as_verdict(name: str, problem: Problem, result: Any) -> Verdict:
    if isinstance(result, Verdict) and result.outcome in typing.get_args(Outcome):
        return result
    if isinstance(result, bool):
        return Verdict("right") if result else Verdict("wrong", None, f"expected {problem.answer}")
    got = f"outcome {result.outcome!r}" if isinstance(result, Verdict) else type(result).__name__
    raise DataError(f"The verifier {name} must return True, False or a Verdict, got {got} for row {problem.id}.")


def _tail(error: BaseException) -> str:
    """The last lines of a traceback, from the user's code on."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__)[1:] if "importlib" not in frame.filename]
    lines = "".join([*traceback.format_list(frames), *traceback.format_exception_only(error)]).rstrip().splitlines()
    return "\n".join(lines[-LAST_LINES:])
