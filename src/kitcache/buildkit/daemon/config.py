"""The configuration directory of docker's client, and JSON files in it.

Source: docker/cli, cli/config.
"""

import json
import os
import pwd
from collections.abc import Mapping
from typing import Any

from kitcache.store.userfiles import read_regular

CONFIG_FILE = "config.json"
MAX_CONFIG_BYTES = 4 * 1024 * 1024
"""The most that is read of one file of docker or buildx."""


def home_directory(environ: Mapping[str, str]) -> str:
    """Return HOME, or the home directory of the user database."""
    home = environ.get("HOME")
    if home:
        return home
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return "/"


def config_directory(environ: Mapping[str, str]) -> str:
    """Return DOCKER_CONFIG, or ~/.docker, which may not exist."""
    return environ.get("DOCKER_CONFIG") or os.path.join(home_directory(environ), ".docker")


def read_object(path: str) -> dict[str, Any] | None:
    """Return the JSON object in a file, None if the file does not exist.

    Raises ValueError if it cannot be read or is not an object. The text quotes nothing of the file,
    since it can hold passwords.
    """
    try:
        value = json.loads(read_regular(path, MAX_CONFIG_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")
    return value


def get_object(parent: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the object of a key; an empty one if the value is missing or not an object."""
    value = parent.get(key)
    return value if isinstance(value, dict) else {}


def get_text(parent: Mapping[str, Any], key: str) -> str:
    """Return the text of a key; "" if the value is missing or not a text."""
    value = parent.get(key)
    return value if isinstance(value, str) else ""
