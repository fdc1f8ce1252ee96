"""The one option that this project adds to pytest, and the signals and servers that tests use."""

import signal

import pytest

pytest_plugins = ("tests.objects.servers", "tests.objects.azureclock")

# A shell has what it starts in the background ignore these, and all that it starts in turn. Tests
# send them to children, which are to be as a terminal starts them.
for _number, _usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _usual)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        action="store_true",
        help="rewrite tests/unit/golden/ instead of comparing with it",
    )
