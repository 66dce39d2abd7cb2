"""The command `kinobeam`: one module per subcommand, imported when it is asked for.

A subcommand is a module with `run(config: SomeDataclass)`: the flags are the fields of the
dataclass, nested ones with a dot, and a number that `run` returns is the exit code.
"""

from __future__ import annotations

import importlib
import sys
import typing
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

USER_ERROR = 2
INTERRUPTED = 130


class Command(NamedTuple):
    """A subcommand: its words, the module that has `run`, and its line in `kinobeam --help`."""

    name: str
    module: str
    help: str


COMMANDS = (
    Command(
        "generate",
        "kinobeam.cli.generate",
        "make a video of a prompt, plain and searched, and report",
    ),
    Command("info", "kinobeam.cli.info", "versions, devices, and which kernels run here and why"),
    Command("world train", "kinobeam.cli.train", "train the embedded world's models anew"),
    Command(
        "world evaluate",
        "kinobeam.world.evaluate",
        "measure the world's models with the pixel judge",
    ),
    Command(
        "bench search", "kinobeam.benchmarks.search", "compare the search methods on the world"
    ),
)
_EXAMPLE = (
    'kinobeam generate "a red circle moves left on a dark background" \\\n'
    "      --search.method dlbs --seed 0 --output out/demo"
)


_HELP = ("-h", "--help")
_GROUPS = {c.name.split()[0] for c in COMMANDS if " " in c.name}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        argv: the words after `kinobeam`; by default those of the process.

    Returns:
        0, 2 after a user error (one line on stderr), 130 after Ctrl-C.

    Raises:
        SystemExit: as argparse does, after `--help` of a subcommand or a flag it does not know.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(words)
    except KeyboardInterrupt:
        print("\nkinobeam: stopped", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, TypeError, OSError) as error:
        print(f"kinobeam: error: {_one_line(error)}", file=sys.stderr)
        return USER_ERROR


def _run(words: list[str]) -> int:
    if not words:
        print(overview())
        return USER_ERROR
    if any(word in _HELP for word in words[: 2 if words[0] in _GROUPS else 1]):
        print(overview())
        return 0
    if words[0] == "--version":
        from kinobeam import __version__

        print(f"kinobeam {__version__}")
        return 0
    command, rest = _split(words)
    run = _load(command)

    import tyro

    config = tyro.cli(_config_type(run), prog=f"kinobeam {command.name}", args=rest)
    code = run(config)
    return code if isinstance(code, int) else 0


def overview() -> str:
    """What `kinobeam --help` prints."""
    width = max(len(command.name) for command in COMMANDS)
    lines = [f"  {command.name:<{width}}  {command.help}" for command in COMMANDS]
    return "\n".join(
        [
            "usage: kinobeam COMMAND [OPTIONS]",
            "",
            "Search over latents: a text-to-video model delivers what the prompt asked for.",
            "",
            "commands:",
            *lines,
            "",
            "  kinobeam COMMAND --help lists the options of a command; kinobeam --version.",
            "",
            "example:",
            f"  {_EXAMPLE}",
        ]
    )


def _split(words: list[str]) -> tuple[Command, list[str]]:
    """The command that the words begin with, and the words after it."""
    for command in COMMANDS:
        name = command.name.split()
        if words[: len(name)] == name:
            return command, words[len(name) :]
    under = [command.name for command in COMMANDS if command.name.split()[0] == words[0]]
    given = " ".join(words[: 2 if under else 1])
    expected = ", ".join(under or [command.name for command in COMMANDS])
    raise ValueError(f"expected a command ({expected}), got {given!r}; see kinobeam --help")


def _load(command: Command) -> Callable[[Any], Any]:
    try:
        module = importlib.import_module(command.module)
    except ModuleNotFoundError as error:
        if error.name != command.module:
            raise
        raise ValueError(
            f"{command.name}: this installation has no {command.module}; reinstall kinobeam"
        ) from error
    run: Callable[[Any], Any] = module.run
    return run


def _config_type(run: Callable[[Any], Any]) -> type[Any]:
    """The dataclass that `run` takes."""
    hints = typing.get_type_hints(run)
    hints.pop("return", None)
    (config,) = hints.values()
    assert isinstance(config, type)
    return config


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
