from kitcache.wrap.bake import BakeJob


def job(*words: str, dropped: frozenset[int] = frozenset()) -> BakeJob:
    targets = (("a", ("1", "2")), ("b", ()), ("c", ("3",)))
    return BakeJob(("docker", "buildx", "bake", *words), 2, targets, (), dropped, None)


def test_nothing_changed_is_the_same_command() -> None:
    assert job("x").rewrite(("1", "2", "3")).argv == ("docker", "buildx", "bake", "x")


def test_every_target_is_set_and_the_users_own_setting_goes() -> None:
    words = ("--set", "*.cache-to=1", "a")
    argv = job(*words, dropped=frozenset((3, 4))).rewrite(("1", "x", "3")).argv
    settings = ["a.cache-to=1", "a.cache-to=x", "b.cache-to=", "c.cache-to=3"]
    wanted = [word for setting in settings for word in ("--set", setting)]
    assert argv == ("docker", "buildx", "bake", *wanted, "a")


def test_a_target_without_exports_is_not_mentioned_without_need() -> None:
    assert "b.cache-to=" not in job().rewrite(("1", "x", "3")).argv


def test_each_target_is_a_build() -> None:
    assert job().solves == (0, 0, 2)
