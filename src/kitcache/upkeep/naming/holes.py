"""What a survey has against one root: whether it could be imported whole as it is. Pure."""

from kitcache.gc.reach import reach
from kitcache.gc.values import Damage, MissingLeaf, Root, Survey

Hole = Damage | MissingLeaf


def find_holes(survey: Survey, root: Root) -> tuple[Hole, ...]:
    """What is damaged, missing or not whole of all that a root of this survey reaches.

    The subject of an artifact may be absent, as OCI has it.
    """
    if root.descriptor is None:
        return tuple(damage for damage in survey.damage if damage.root == root)
    reached = reach(survey, root.descriptor)
    needed = reach(survey, root.descriptor, with_subjects=False)
    damage = [d for d in survey.damage if d.chain and d.chain[-1].digest in reached]
    return (*damage, *(leaf for leaf in survey.missing_leaves if leaf.digest in needed))
