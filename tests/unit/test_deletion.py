"""Only gc/sweep.py asks a store to delete blobs and uploads. The linter sees imports, not calls."""

import ast
from pathlib import Path

import kitcache

PACKAGE = Path(kitcache.__file__).parent
DELETING = {"delete_names", "delete_ingest"}


def callers(tree: ast.AST) -> set[str]:
    """The names of DELETING that a module mentions as an attribute, called or handed on."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in DELETING
    }


def test_only_the_sweep_deletes() -> None:
    found = {
        str(path.relative_to(PACKAGE)): names
        for path in PACKAGE.rglob("*.py")
        if (names := callers(ast.parse(path.read_text())))
    }
    # The directory store hands the call on to store/delete.py.
    assert found == {"gc/sweep.py": DELETING, "store/directory.py": {"delete_ingest"}}


def test_a_second_caller_would_be_seen() -> None:
    assert callers(ast.parse("remove = store.delete_names\nremove(lock, 'sha256', [])")) == {
        "delete_names"
    }
