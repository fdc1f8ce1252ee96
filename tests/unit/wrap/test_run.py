from kitcache.options.caches import CacheExport
from kitcache.wrap.bake import BakeJob
from kitcache.wrap.run import ExecResult, Export, StoreResult, Task, staged_exports


def task_of(*targets: tuple[str, ...]) -> Task:
    """A bake whose targets export to these directories."""
    texts = tuple((f"t{n}", tuple(dests)) for n, dests in enumerate(targets))
    job = BakeJob(("bake",), 0, texts, (), frozenset(), None)
    dests = [dest for target in targets for dest in target]
    return Task(
        job, tuple(Export(n, CacheExport("local", dest=d)) for n, d in enumerate(dests)), ()
    )


def test_several_of_one_build_or_to_one_directory_are_staged() -> None:
    assert staged_exports(task_of(("a",), ("b",)), staged=False) == frozenset()
    assert staged_exports(task_of(("a",), ("./a",), ("b",)), staged=False) == {0, 1}
    assert staged_exports(task_of(("a", "b"), ("c",)), staged=False) == {0, 1}
    assert staged_exports(task_of(("a",), ("b",)), staged=True) == {0, 1}


def test_the_exit_code_is_the_commands_unless_it_was_fine() -> None:
    bad = StoreResult("c", (), True, code=12)
    assert ExecResult(("docker",), 5, (bad,)).exit_code == 5
    assert ExecResult(("docker",), 0, (bad, bad._replace(code=3))).exit_code == 12
    assert ExecResult(("docker",), 0, ()).exit_code == 0
