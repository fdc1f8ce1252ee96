"""Runs one job per blob in several threads; the caller's thread reports the progress."""

from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import Generic, NamedTuple, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

_TICK_S = 0.1


class Finished(NamedTuple, Generic[Job, Result]):
    """A job that is complete, with its result."""

    job: Job
    result: Result


class JobThreads(Generic[Job, Result]):
    """Runs jobs in threads, in order. Each job can report numbers.

    Attributes:
        stop: Set after an error, or if the caller has left: jobs end early.
    """

    def __init__(
        self, jobs: Iterable[Job], work: Callable[[Job], Result], number_of_threads: int
    ) -> None:
        self._jobs = iter(jobs)
        self._work = work
        self._lock = Lock()
        self._events: SimpleQueue[int | Finished[Job, Result] | BaseException | None]
        self._events = SimpleQueue()
        self._running = number_of_threads
        self._threads = [
            Thread(target=self._run, name="kitcache-blobs", daemon=True)
            for _ in range(self._running)
        ]
        self.stop = Event()

    def report(self, number: int) -> None:
        """Report a number to the caller of `run`. For the jobs."""
        self._events.put(number)

    def run(self, tick: Callable[[], None]) -> Iterator[int | Finished[Job, Result]]:
        """Yield the numbers and the results as they arrive.

        If a job raises, the other jobs end early and the error is raised. All threads have ended
        afterwards, also if the caller stops the iteration.

        Args:
            tick: Called every tenth of a second without an event. It may raise.
        """
        for thread in self._threads:
            thread.start()
        try:
            while self._running:
                try:
                    event = self._events.get(timeout=_TICK_S)
                except Empty:
                    tick()
                    continue
                if isinstance(event, BaseException):
                    raise event
                if event is None:
                    self._running -= 1
                else:
                    yield event
        finally:
            self.stop.set()
            for thread in self._threads:
                thread.join()

    def _run(self) -> None:
        try:
            while not self.stop.is_set():
                with self._lock:
                    job = next(self._jobs, None)
                if job is None:
                    break
                self._events.put(Finished(job, self._work(job)))
        except BaseException as error:  # noqa: BLE001 - the caller's thread raises it
            self._events.put(error)
        self._events.put(None)
