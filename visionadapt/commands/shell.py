"""What all commands share: parsing, exit codes, and one-line error messages."""

from __future__ import annotations

import errno
import io
import logging
import os
import signal
import sys
from collections.abc import Sequence
from itertools import pairwise
from types import FrameType
from typing import Any, NoReturn

from cyclopts import App, ArgumentCollection, CycloptsError, UnknownCommandError, UnusedCliTokensError
from cyclopts.help import DefaultFormatter, HelpPanel

from visionadapt.core.spec import suggestion
from visionadapt.errors import Terminated, UsageError, VisionAdaptError, without_secrets
from visionadapt.runs.options import RENAMED
from visionadapt.system import distributed, first_line
from visionadapt.system.process import collect_garbage_rarely, leave, wait_asleep
from visionadapt.system.text import terminal_safe
from visionadapt.version import __version__

INTERRUPTED = 130
SIGNALLED = 128
BROKEN_PIPE = 141

_log = logging.getLogger("visionadapt")
_shown = logging.lastResort or logging.StreamHandler()
"""Prints warnings to standard error, which the library alone keeps silent about."""

_WARNINGS = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))
"""Signals beside SIGTERM by which a closed terminal and batch systems end a process, unless it ignores them."""


class _Flowing(DefaultFormatter):
    """Shows help texts without the line breaks of the docstrings that they stand in."""

    def __call__(self, console: Any, options: Any, panel: HelpPanel) -> None:
        for entry in panel.entries:
            text = getattr(entry.description, "primary_renderable", None)
            if text is not None and hasattr(text, "plain"):
                entry.description.primary_renderable = type(text)(" ".join(text.plain.split()))
        super().__call__(console, options, panel)


def app(name: str, *examples: str, about: str | None = None) -> App:
    """Return the parser of a command, with `examples` of command lines below its help.

    The help is `about`, or the docstring of the command's default function.
    """
    parser = App(
        name=name,
        help=about,
        help_epilogue="\n".join(["Examples:", *(f"  {example}" for example in examples)]) if examples else None,
        version=__version__,
        help_format="plaintext",
        help_formatter=_Flowing(),
        suppress_keyboard_interrupt=False,
        config=_check_whole_numbers,
    )
    for flag in ("--help", "--version"):  # as cyclopts does for a command of a command
        parser[flag].show = False
    return parser


def main(parser: App) -> NoReturn:
    """Run this process's command and exit."""
    wait_asleep()
    leave(run(parser))


def run(parser: App, tokens: Sequence[str] | None = None) -> int:
    """Parse, run, and return the exit code: 0 done, 2 user error, 128 + signal stopped by it, 141 closed output pipe.

    A file or folder that the system refuses is a user error. A bug keeps its traceback and ends with Python's own 1.
    """
    interrupt = _listen_to_signals()
    collect_garbage_rarely()
    _write_any_text()
    _log.addHandler(_shown)
    try:
        words = _present_names(sys.argv[1:] if tokens is None else tokens)
        code: Any = parser(words, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
        return int(code or 0)
    except CycloptsError as error:
        return _fail(_one_line(error), 2)
    except VisionAdaptError as error:
        return _fail(str(error), error.exit_code)
    except BrokenPipeError:  # the reader of the output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT} and error.filename is None:
            return _fail("there is no space left to write to; make some, and repeat the command", 2)
        if error.filename is None:
            raise
        return _fail(f"{error.filename}: {error.strerror}; see that it is there, and may be read and written", 2)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except Terminated as error:
        name = signal.Signals(error.number).name
        return _fail("terminated" if name == "SIGTERM" else f"stopped by {name}", SIGNALLED + error.number)
    finally:
        first_line.erase()
        _log.removeHandler(_shown)
        if tokens is not None:  # the process goes on
            signal.signal(signal.SIGINT, interrupt)


def _present_names(tokens: Sequence[str]) -> list[str]:
    """Replace former names of options by their present ones, and `-` for standard input, no option, by `@-`."""
    names = {f"--{old}".replace("_", "-"): f"--{new}".replace("_", "-") for old, new in RENAMED.items()}
    read = ("@-" if token == "-" and before != "--out" else token for before, token in pairwise(("", *tokens)))
    split = (token.partition("=") for token in read)
    return [f"{names.get(name, name)}{equals}{value}" for name, equals, value in split]


def _check_whole_numbers(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Raise UsageError for a fraction in place of an integer, which the parser would round."""
    for argument in arguments:
        if argument.hint in (int, int | None):
            for token in argument.tokens:
                if "." in token.value:
                    raise UsageError(f"{token.keyword or argument.name} {token.value} is no whole number; give one")


def _write_any_text() -> None:
    """Write characters that the terminal's encoding lacks as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _listen_to_signals() -> Any:
    """Raise KeyboardInterrupt or Terminated on signals, but none that is ignored; return what SIGINT did before."""
    interrupt = signal.getsignal(signal.SIGINT) or signal.SIG_DFL
    signal.signal(signal.SIGTERM, _terminate)
    for number in _WARNINGS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _terminate)
    if interrupt is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)
    return interrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    _leave_on_the_next_interrupt()
    raise KeyboardInterrupt


def _terminate(number: int, frame: FrameType | None) -> None:
    _leave_on_the_next_interrupt()
    if signal.Signals(number).name == "SIGHUP":
        _leave_closed_terminal()
    raise Terminated(number)


def _leave_on_the_next_interrupt() -> None:
    """Exit on the next Ctrl-C without cleaning up; files are whole at any moment."""
    if distributed.launched() == 1 and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(INTERRUPTED))


def _leave_closed_terminal() -> None:
    """Send output nowhere if its terminal is gone."""
    for descriptor in (1, 2):
        try:
            os.write(descriptor, b"")
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def _fail(message: str, code: int) -> int:
    line = without_secrets(" ".join(message.split("\n")))
    if distributed.launched() > 1:  # torchrun sends on every signal: one is enough
        for number in (signal.SIGINT, signal.SIGTERM, *_WARNINGS):
            signal.signal(number, signal.SIG_IGN)
    first_line.erase()
    tells, code = distributed.ending(line, code)
    if tells:
        sys.stderr.write(f"error: {terminal_safe(line)}\n")
    if distributed.launched() > 1:  # a normal exit would abort: the threads of the group are still running
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _one_line(error: CycloptsError) -> str:
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"unexpected argument {error.unused_tokens[0]!r}; see --help"
    if isinstance(error, UnknownCommandError) and error.unused_tokens and error.app is not None:
        known = [name for name in error.app if not name.startswith("-")]
        word = error.unused_tokens[0]
        return f"there is no command {word!r}; there are {', '.join(known)}{suggestion(word, known)}"
    message = " ".join(str(error).split())
    return message if message.endswith("?") else f"{message.rstrip('.')}; see --help"
