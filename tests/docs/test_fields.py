"""docs/fields.md: what it says of the public values is what they are."""

import pytest

from tests.docs.fields import PAGE, fields_page


def test_the_page_is_what_the_values_are(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--golden"):
        PAGE.write_text(fields_page())
    assert fields_page() == PAGE.read_text(), "if this is as it should be: make golden"
