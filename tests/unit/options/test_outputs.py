"""options/outputs.py: --output in buildx's words."""

import pytest

from kitcache.errors import UsageError
from kitcache.options.outputs import Output, parse_output

UNDERSTOOD = {
    "out": Output("local", "out"),
    "./a b": Output("local", "./a b"),
    "-": Output("tar", "-"),
    "type=local,dest=out": Output("local", "out"),
    "type=local, dest=out,mode=delete": Output("local", "out", (("mode", "delete"),)),
    "type=tar": Output("tar", "-"),
    "type=tar,dest=x.tar": Output("tar", "x.tar"),
    "type=oci": Output("oci", "-"),
    "type=oci,dest=d,tar=false": Output("oci", "d", (("tar", "false"),)),
    "type=docker": Output("docker"),
    "type=docker,dest=-": Output("docker", "-"),
    "type=image,name=a,push=true": Output("image", None, (("name", "a"), ("push", "true"))),
    "type=registry": Output("registry"),
    "type=cacheonly": Output("cacheonly"),
}
REFUSED = {
    "dest=out,tar=true": "type is required for output",
    "type=,dest=out": "type is required for output",
    "type=local": "dest is required for local exporter",
    "type=local,dest=-": "dest cannot be stdout for local exporter",
    "type=oci,tar=false": "dest is required for oci exporter",
    "type=docker,tar=0,dest=-": "dest cannot be stdout for docker exporter",
    "type=oic,dest=x": 'exporter "oic" could not be found',
    "type=image,dest=x": "the image exporter writes no file, so that dest=x would be ignored",
    "type=image,name=Foo": 'invalid tag "Foo": repository name must be lowercase',
    "type=tar,foo": "invalid value foo",
    'a"b': 'parse error on line 1, column 2: bare " in non-quoted-field',
    "": "EOF: the value is empty",
}


@pytest.mark.parametrize("text", UNDERSTOOD)
def test_what_an_output_means(text: str) -> None:
    assert parse_output(text) == UNDERSTOOD[text]


@pytest.mark.parametrize("text", REFUSED)
def test_an_output_is_refused_in_buildxs_words(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_output(text)
    assert caught.value.problem == REFUSED[text]


def test_a_directory_with_an_equals_sign_is_a_directory() -> None:
    assert parse_output("a=b") == Output("local", "a=b")
    assert parse_output("./type=x") == Output("local", "./type=x")


def test_a_directory_with_a_comma_needs_the_long_form() -> None:
    with pytest.raises(UsageError, match="invalid value a"):
        parse_output("a,b")
    assert parse_output('type=local,"dest=a,b"').dest == "a,b"


def test_a_mistyped_kind_is_guessed() -> None:
    with pytest.raises(UsageError) as caught:
        parse_output("type=Registri")
    assert caught.value.next_steps == ("did you mean registry?",)


def test_what_is_pushed() -> None:
    assert parse_output("type=registry,name=a").is_pushed
    assert parse_output("type=image,push=true").is_pushed
    assert not parse_output("type=image,push=no").is_pushed
