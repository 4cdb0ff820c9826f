"""What all commands of `python -m zoo` have in common."""

import argparse

import pytest

from zoo.__main__ import COMMANDS, main, make_parser


def parsers_below(parser: argparse.ArgumentParser, name: str = ""):
    """Yields each command and what it divides into, with what is typed for it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, inner in action.choices.items():
                yield f"{name} {word}".strip(), inner
                yield from parsers_below(inner, f"{name} {word}".strip())


PARSERS = dict(parsers_below(make_parser()))


def test_there_are_as_many_as_files():
    assert len([name for name in PARSERS if " " not in name]) == len(COMMANDS)


@pytest.mark.parametrize("name", PARSERS)
def test_each_has_an_example(name):
    text = PARSERS[name].format_help()
    example = text.partition("example:\n")[2].strip()
    assert example.startswith(f"python -m zoo {name}")


@pytest.mark.parametrize("name", PARSERS)
def test_a_flag_that_is_not_there_is_refused(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), "--no-such-flag"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "--no-such-flag" in said or "are required" in said
