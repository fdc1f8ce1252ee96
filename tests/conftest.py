"""The one option that this project adds to pytest."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        action="store_true",
        help="rewrite tests/unit/golden/ instead of comparing with it",
    )
