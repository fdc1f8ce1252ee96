"""Azurite with a clock that tests set, so that blobs and runs are as old as a test needs."""

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.objects.buckets import AzureBucket, Server, load_fixture
from tests.objects.servers import AZURITE, Process, need, run_server, start_azurite

DAY_S = 24 * 3600
CLOCK = """\
// Shifts the clock of node by the seconds in the file CLOCK_FILE.
const { openSync, readSync } = require("fs");
const file = openSync(process.env.CLOCK_FILE);
const text = Buffer.alloc(32);
const shift = () => Number(text.toString("latin1", 0, readSync(file, text, 0, 32, 0))) * 1000;
const Real = Date;
globalThis.Date = class extends Real {
  constructor(...args) {
    if (args.length) super(...args);
    else super(Real.now() + shift());
  }
  static now() {
    return Real.now() + shift();
  }
};
// Some answers have the Date header of node itself, which keeps the real clock.
const { ServerResponse } = require("http");
const writeHead = ServerResponse.prototype.writeHead;
ServerResponse.prototype.writeHead = function (...args) {
  if (!this.hasHeader("Date")) this.setHeader("Date", new Date().toUTCString());
  return writeHead.apply(this, args);
};
"""


class ClockedAzure:
    """A running Azurite. `go_to(day)` sets its clock that many days ahead."""

    def __init__(self, server: Server, clock: Path) -> None:
        self.server = server
        self._clock = clock

    def go_to(self, day: float) -> None:
        # Of one length, so that node never reads half a number.
        self._clock.write_text(f"{int(day * DAY_S):012d}")


@pytest.fixture(scope="session")
def clocked_azure(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ClockedAzure]:
    need(request, AZURITE, "azurite (make .venv/azurite/ready; it needs npm)")
    directory = tmp_path_factory.mktemp("clock")
    script, clock = directory / "clock.js", directory / "clock"
    script.write_text(CLOCK)
    clock.write_text("0")

    def start(process: Process) -> str:
        variables = {"CLOCK_FILE": str(clock), "NODE_OPTIONS": f"--require {script}"}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setitem(os.environ, name, value)
            return start_azurite(process)

    for server in run_server("azurite", 1, start):
        yield ClockedAzure(server, clock)


_numbers = count()


@pytest.fixture
def clocked_cache(clocked_azure: ClockedAzure) -> Iterator[AzureBucket]:
    """The real cache of the fixture, written on day 0. The clock is on day 1."""
    clocked_azure.go_to(0)
    name = f"clocked-{next(_numbers)}"
    with AzureBucket.open(clocked_azure.server, name, "ci/") as bucket:
        bucket.create()
        load_fixture(bucket, "azblob")
        clocked_azure.go_to(1)
        yield bucket
