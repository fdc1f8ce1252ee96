"""docs/fields.md matches the public values."""

import pytest

from tests.docs.fields import PAGE, fields_page


def test_the_page_matches_the_values(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--golden"):
        PAGE.write_text(fields_page())
    assert fields_page() == PAGE.read_text(), "if this change is intended, run: make golden"
