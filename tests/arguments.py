"""Command lines made up from a parser: its commands and options, with values that fit and values that do not."""

import argparse
from collections.abc import Callable

import pytest
from hypothesis import strategies as st

# What a shell can hand over: anything but NUL. No slash, so that what is written stays in the test's folder.
ANY = st.text(st.characters(exclude_characters="\0/"), max_size=8)
NUMBERS = st.one_of(
    st.integers().map(str), st.floats().map(str), st.sampled_from(["0", "1", "-1", "10", "1e400", "٣", ""])
)


@st.composite
def command_lines(
    draw: st.DrawFn,
    parser: argparse.ArgumentParser,
    words: tuple[str, ...],
    names: tuple[str, ...],
    fits: dict[str, str],
):
    """Words after the program's name.

    Args:
        parser: Of the program, with subcommands.
        words: Values that make sense somewhere.
        fits: Values that make sense for an option, by its name in the code.
        names: Subcommands.
    """
    commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    name = draw(st.sampled_from(names))
    values = st.one_of(st.sampled_from(words), st.sampled_from(words), NUMBERS, ANY)
    found: list[str] = []
    for action in commands.choices[name]._actions:
        if isinstance(action, argparse._HelpAction) or not (action.required or draw(st.integers(0, 2)) == 0):
            continue
        value = fits[action.dest] if action.dest in fits and draw(st.integers(0, 3)) else str(draw(values))
        if not action.option_strings:
            found.append(value)
        elif action.nargs == 0:
            found.append(action.option_strings[0])
        else:
            option = action.option_strings[0]
            found += [f"{option}={value}"] if draw(st.booleans()) else [option, value]
    if draw(st.integers(0, 19)) == 0:
        found += draw(st.lists(values, max_size=2))
    return [name, *found]


def outcome(main: Callable[[list[str]], int], arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """How a command line ends: done, or refused in one message; anything else fails the test."""
    try:
        status = main(arguments)
    except SystemExit as error:  # of argparse, which has told how the command is used
        capsys.readouterr()
        return {0: "done", 2: "refused by the parser"}[error.code]
    told = capsys.readouterr()
    assert "Traceback" not in told.out + told.err
    if status == 2:
        assert sum(line.startswith("error: ") for line in told.err.splitlines()) == 1
        return "refused"
    assert status in (0, 1)
    return "done"
