"""Runs the steps of a CI job as far as that is possible without the CI service."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.docs.blocks import ROOT

ACTION = ROOT / "action.yml"
TEMPLATE = ROOT / "ci" / "gitlab" / "kitcache.yml"
LIMIT_S = 120

_EXPRESSION = re.compile(r"\$\{\{ *(inputs|steps)\.([\w.-]+)( != '')? *\}\}")


class Ran(NamedTuple):
    """The result of a run of the action: exit code, log, outputs, and the job's summary."""

    code: int
    log: str
    outputs: dict[str, str]
    summary: str


class Runner:
    """A GitHub runner: its directories, and the state that the steps of a job share."""

    def __init__(self, top: Path, workspace: Path) -> None:
        self.temp = top / "temp"
        self.temp.mkdir()
        self.workspace = workspace
        self.path: list[str] = []
        self.action: dict[str, Any] = yaml.safe_load(ACTION.read_text())

    def use(self, *only: str, **given: str) -> Ran:
        """Run `uses:` of the action, or only the named steps; `_` in an input stands for `-`."""
        inputs = {name: spec["default"] for name, spec in self.action["inputs"].items()}
        words = {name.replace("_", "-"): value for name, value in given.items()}
        assert words.keys() <= inputs.keys()
        values = {f"inputs.{name}": value for name, value in (inputs | words).items()}
        log, code = "", 0
        summary = self.temp / "summary"
        summary.write_text("")
        for step in self.action["runs"]["steps"]:
            skipped = only and step["id"] not in only
            if skipped or evaluate(step.get("if", "true"), values) == "false":
                continue
            code, said, outputs = self._step(step, values)
            values |= {f"steps.{step['id']}.outputs.{n}": v for n, v in outputs.items()}
            log += said
            if code:
                break
        outputs = {n: evaluate(o["value"], values) for n, o in self.action["outputs"].items()}
        return Ran(code, log, outputs, summary.read_text())

    def run(self, script: str, env: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Run a `run:` with `shell: bash`: bash runs a file, with GitHub's options."""
        file = self.temp / "step.sh"
        file.write_text(script)
        paths = os.pathsep.join([*reversed(self.path), os.environ["PATH"]])
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", file],
            cwd=self.workspace,
            env={**os.environ, **(env or {}), "PATH": paths},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        return done.returncode, done.stdout

    def _step(
        self, step: dict[str, Any], values: dict[str, str]
    ) -> tuple[int, str, dict[str, str]]:
        assert step["shell"] == "bash"
        files = {n: self.temp / n for n in ("output", "path")}
        for file in files.values():
            file.write_text("")
        env = {name: evaluate(value, values) for name, value in step["env"].items()}
        env |= {
            "GITHUB_ACTION_PATH": str(ROOT),
            "GITHUB_OUTPUT": str(files["output"]),
            "GITHUB_PATH": str(files["path"]),
            "GITHUB_STEP_SUMMARY": str(self.temp / "summary"),
            "GITHUB_WORKSPACE": str(self.workspace),
            "RUNNER_TEMP": str(self.temp),
        }
        code, said = self.run(step["run"], env)
        self.path += files["path"].read_text().splitlines()
        pairs = (line.partition("=") for line in files["output"].read_text().splitlines())
        return code, said, {name: value for name, _, value in pairs}


def evaluate(text: str, values: Mapping[str, str]) -> str:
    """Return the text with its expressions replaced, as far as action.yml uses them."""

    def value(match: re.Match[str]) -> str:
        found = values.get(f"{match[1]}.{match[2]}", "")
        return str(found != "").lower() if match[3] else found

    filled = _EXPRESSION.sub(value, text)
    assert "${{" not in filled, f"this expression is not understood here: {text}"
    return filled


def check_schema(schema: str, *files: Path) -> None:
    """Validate YAML files against a schema of check-jsonschema."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    if schema == "gitlab-ci":
        command += ["--data-transform", "gitlab-ci"]
    done = subprocess.run(
        [*command, *files], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
