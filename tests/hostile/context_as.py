"""Sends a directory as another user. A program: context_as.py UID DIR EXCLUDE...; prints JSON.

All of the package is loaded before the user changes: it may lie where that user cannot look.
"""

import json
import os
import sys

from tests.unit.buildkit.session.daemon import ToldError, ask_for, fetch, start


def main(uid: int, path: str, excludes: tuple[str, ...]) -> None:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    call = start({"context": path}, ask_for(excludes=excludes))
    try:
        found = fetch(call.stream)
        data = {name: content.decode() for name, content in found.data.items()}
        json.dump({"paths": found.paths, "data": data}, sys.stdout)
    except ToldError as error:
        json.dump({"error": str(error)}, sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], tuple(sys.argv[3:]))
