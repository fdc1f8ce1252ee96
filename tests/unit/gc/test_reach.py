"""gc/reach.py: what lies below a root, and every way down to a blob. No disk at all."""

from kitcache.gc.reach import links_below, paths_to, reach
from kitcache.gc.values import Root, Survey, key_of
from kitcache.oci.descriptor import Descriptor
from kitcache.oci.links import Link, Role
from tests.unit.gc.surveys import EMPTY, digest


def node(word: str) -> Descriptor:
    return Descriptor("type", digest(word), 7)


def survey(roots: list[str], graph: dict[str, list[str]], role: Role = "manifest") -> Survey:
    return EMPTY._replace(
        roots=tuple(Root(n, f"tag {word}", node(word)) for n, word in enumerate(roots)),
        links={
            key_of(node(parent)): tuple(Link(node(child), role) for child in children)
            for parent, children in graph.items()
        },
    )


def paths(found: Survey, word: str) -> list[tuple[str | None, list[Descriptor]]]:
    return [
        (path.root.ref_name, [link.descriptor for link in path.links])
        for path in paths_to(found, node(word).digest)
    ]


def test_everything_at_or_below_a_descriptor() -> None:
    found = survey([], {"a": ["b", "c"], "b": ["d"], "x": ["y"]})
    assert set(reach(found, node("a"))) == {node(word).digest for word in "abcd"}
    assert set(reach(found, node("d"))) == {node("d").digest}


def test_the_first_link_that_is_met_counts() -> None:
    found = survey([], {"a": ["b", "c"], "c": ["b"]}, role="layer")
    reached = reach(found, node("a"))
    assert reached[node("a").digest].role == "manifest"
    assert reached[node("b").digest].role == "layer"


def test_a_diamond_of_forty_levels_is_walked_once() -> None:
    graph = {f"{n}": [f"{n + 1}", f"{n + 1}"] for n in range(40)}
    assert len(reach(survey([], graph), node("0"))) == 41


def test_each_path_from_each_root_in_order() -> None:
    found = survey(["r", "s"], {"r": ["a", "b"], "s": ["b"], "a": ["x"], "b": ["x", "y"]})
    assert paths(found, "x") == [
        ("tag r", [node("r"), node("a"), node("x")]),
        ("tag r", [node("r"), node("b"), node("x")]),
        ("tag s", [node("s"), node("b"), node("x")]),
    ]


def test_a_root_is_a_path_to_itself() -> None:
    assert paths(survey(["r"], {"r": ["a"]}), "r") == [("tag r", [node("r")])]


def test_what_nobody_reaches_has_no_path() -> None:
    assert paths(survey(["r"], {"r": ["a"], "x": ["y"]}), "y") == []


def test_a_root_that_cannot_be_read_leads_nowhere() -> None:
    found = survey(["r"], {})._replace(roots=(Root(0, "bad", None),))
    assert paths(found, "r") == []


def test_a_link_given_twice_is_one_path() -> None:
    assert len(paths(survey(["r"], {"r": ["a", "a"]}), "a")) == 1


def test_paths_are_made_as_they_are_asked_for() -> None:
    graph = {f"{n}": [f"{n} left", f"{n} right"] for n in range(200)}
    graph |= {f"{n} {side}": [f"{n + 1}"] for n in range(200) for side in ("left", "right")}
    first = next(paths_to(survey(["0"], graph), node("200").digest))
    assert len(first.links) == 401


def test_a_search_never_enters_what_does_not_lead_there() -> None:
    graph = {f"{n}": [f"{n + 1}", f"{n + 1} too"] for n in range(60)}
    graph |= {f"{n} too": [f"{n + 1}"] for n in range(60)}
    graph["root"] = ["0", "x"]
    assert len(paths(survey(["root"], graph), "x")) == 1


def test_a_path_may_be_longer_than_any_stack() -> None:
    graph = {f"{n}": [f"{n + 1}"] for n in range(5000)}
    ((_, links),) = paths(survey(["0"], graph), "5000")
    assert len(links) == 5001


def loop_below_a_lattice(levels: int) -> Survey:
    """The root names x, and a lattice whose last level leads back to the root and nowhere else."""
    graph = {f"{n}": [f"{n + 1}", f"{n + 1} too"] for n in range(levels)}
    graph |= {f"{n} too": [f"{n + 1}", f"{n + 1} too"] for n in range(1, levels)}
    graph |= {"root": ["x", "0"], f"{levels}": ["root"], f"{levels} too": ["root"]}
    return survey(["root"], graph)


def test_a_lattice_that_leads_back_has_no_further_path() -> None:
    assert paths(loop_below_a_lattice(28), "x") == [("tag root", [node("root"), node("x")])]


def test_a_path_that_leads_back_is_followed_until_it_meets_itself() -> None:
    found = survey(["r"], {"r": ["a", "x"], "a": ["r", "b"], "b": ["a", "x"]})
    assert paths(found, "x") == [
        ("tag r", [node("r"), node("a"), node("b"), node("x")]),
        ("tag r", [node("r"), node("x")]),
    ]


def test_a_search_for_paths_hears_its_caller() -> None:
    asked = []
    assert list(paths_to(survey(["r"], {"r": ["a"]}), node("a").digest, lambda: asked.append(1)))
    assert len(asked) == 2


def test_a_digest_is_met_once_for_each_part_that_it_plays() -> None:
    """As a layer without a type it is a leaf, as an entry without one it is looked into."""
    root, child, below = (Descriptor("", digest(word), 7) for word in ("root", "child", "below"))
    both = (Link(child, "layer"), Link(child, "manifest"))
    links = {key_of(root): both, key_of(child): (Link(below, "manifest"),)}
    found = list(links_below(EMPTY._replace(links=links), root, with_hints=False))
    assert [(link.descriptor.digest, link.role) for link in found] == [
        (root.digest, "manifest"),
        (child.digest, "layer"),
        (child.digest, "manifest"),
        (below.digest, "manifest"),
    ]
