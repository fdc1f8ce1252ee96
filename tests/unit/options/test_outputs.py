"""options/outputs.py: --output in buildx's words."""

import pytest

from kitcache.errors import UsageError
from kitcache.options.outputs import Output, check_output, parse_output

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
    'a"b': 'cannot be read at column 2: a " inside of a field that does not begin with one',
    "": "the value is empty",
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
    assert caught.value.hints == ("did you mean registry?",)


def test_what_is_pushed() -> None:
    assert parse_output("type=registry,name=a").is_pushed
    assert parse_output("type=image,push=true").is_pushed
    assert not parse_output("type=image,push=no").is_pushed


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("type=local,dest=o,mdoe=delete", 'unknown attribute "mdoe"; did you mean mode?'),
        ("type=tar,dest=o,mode=delete", 'unknown attribute "mode"; known: type, dest, '),
        ("type=image,name=a,psuh=true", 'unknown attribute "psuh"; did you mean push?'),
        ("type=oci,dest=a,dest=b", "attribute dest is given twice, the last one counts"),
        ("type=cacheonly,dets=x", 'unknown attribute "dets"; known: type'),
    ],
)
def test_an_attribute_that_nobody_knows_is_a_warning(text: str, says: str) -> None:
    (warning,) = parse_output(text).warnings
    assert warning.startswith(f"{text.partition(',')[0].removeprefix('type=')} output: {says}")


def test_known_attributes_are_no_warning() -> None:
    for text in (
        "type=local,dest=o,platform-split=false,mode=copy",
        "type=image,name=a,push=true,annotation-index.org.a=b,annotation[linux/amd64].c=d",
        "type=oci,dest=o,tar=false,compression=zstd,compression-level=3,force-compression=true",
        "type=docker,context=other,rewrite-timestamp=true",
    ):
        assert parse_output(text).warnings == ()


def test_an_output_made_by_hand_is_looked_at_too() -> None:
    (warning,) = check_output(Output("local", "o", (("mdoe", "delete"),))).warnings
    assert "did you mean mode?" in warning


def test_the_mode_of_a_local_output() -> None:
    for text, is_mirror in (("", False), (",mode=copy", False), (",mode= Delete ", True)):
        assert parse_output(f"type=local,dest=o{text}").is_mirror is is_mirror
    with pytest.raises(UsageError, match='invalid local exporter mode "backup"'):
        parse_output("type=local,dest=o,mode=backup")
