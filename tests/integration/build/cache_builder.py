"""A process that builds, again and again, and exports to a local cache with reset=true.

cache_builder.py SOCKET: each line of stdin is a JSON list of a context, a cache and a tag; each
line of stdout says what became of it.
"""

import json
import sys

import kitcache


def main(socket: str) -> None:
    with kitcache.Client(f"unix://{socket}") as client:
        for line in sys.stdin:
            where, cache, tag = json.loads(line)
            value = f"type=local,dest={cache},tag={tag},mode=max,reset=true"
            try:
                result = client.build(where, outputs="type=cacheonly", cache_to=value)
            except kitcache.KitcacheError as error:
                said = {"outcome": "raised", "problem": str(error)}
            else:
                (export,) = result.caches
                report = export.reset
                said = {
                    "outcome": export.outcome,
                    "digest": export.digest,
                    "problem": export.problem,
                    "notices": result.notices,
                    "reset": report.outcome if report else None,
                    "why": report.reason if report else "",
                }
            sys.stdout.write(json.dumps(said) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
