"""The oracle is no oracle if it is wrong: two judges that share no reasoning must agree."""

from hypothesis import given

from tests.property import witness
from tests.property.disk import blobs, on_disk
from tests.property.model import Cache, reach
from tests.property.strategies import caches


@given(caches())
def test_links_of_the_model_are_what_its_bytes_say(cache: Cache) -> None:
    with on_disk(cache) as root:
        assert witness.look(root).reached == reach(cache)


@given(caches())
def test_what_the_model_calls_present_is_on_disk(cache: Cache) -> None:
    with on_disk(cache) as root:
        assert blobs(root) == cache.present
