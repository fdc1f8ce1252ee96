"""Where docker's client keeps its configuration, and what config.json says.

Source: docker/cli, cli/config.
"""

import json
import os
import pwd
from collections.abc import Mapping
from typing import Any

from kitcache.store.userfiles import read_regular

CONFIG_FILE = "config.json"
LIMIT_BYTES = 4 * 1024 * 1024
"""Of a file of docker's or buildx's."""


def home_directory(environ: Mapping[str, str]) -> str:
    """HOME, or else what the system knows of this user."""
    home = environ.get("HOME")
    if home:
        return home
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return "/"


def config_directory(environ: Mapping[str, str]) -> str:
    """DOCKER_CONFIG, or ~/.docker. It need not exist."""
    return environ.get("DOCKER_CONFIG") or os.path.join(home_directory(environ), ".docker")


def read_object(path: str) -> dict[str, Any] | None:
    """The JSON object in a file; None where there is no such file.

    Raises ValueError, in words that quote nothing of the content, where it cannot be read or holds
    something else: there may be passwords in it.
    """
    try:
        found = json.loads(read_regular(path, LIMIT_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(found, dict):
        raise ValueError("is not a JSON object")
    return found


def get_object(found: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The object below a key; an empty one where there is none, or something else."""
    value = found.get(key)
    return value if isinstance(value, dict) else {}


def get_text(found: Mapping[str, Any], key: str) -> str:
    """The text below a key; "" where there is none, or something else."""
    value = found.get(key)
    return value if isinstance(value, str) else ""
