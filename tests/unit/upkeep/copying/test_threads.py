"""upkeep/copying/threads.py: jobs in threads, and every way in which they end."""

import threading

import pytest

from kitcache.upkeep.copying.threads import Finished, JobThreads


def alive() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "kitcache-copy"]


def test_every_result_arrives_and_all_threads_end() -> None:
    jobs: JobThreads[int, int] = JobThreads(range(50), lambda job: job * 2, 4)
    events = list(jobs.run(lambda: None))
    assert sorted(events) == [Finished(n, 2 * n) for n in range(50)]
    assert alive() == []


def test_numbers_arrive_before_the_result_of_their_job() -> None:
    def work(job: int) -> str:
        jobs.report(job)
        return "done"

    jobs: JobThreads[int, str] = JobThreads([7], work, 8)
    assert list(jobs.run(lambda: None)) == [7, Finished(7, "done")]


def test_without_jobs_there_is_nothing() -> None:
    jobs: JobThreads[int, int] = JobThreads([], lambda job: job, 8)
    assert list(jobs.run(lambda: None)) == []


def test_an_error_ends_all_jobs() -> None:
    def work(job: int) -> None:
        if job == 3:
            raise KeyError(job)
        jobs.stop.wait(10)

    jobs: JobThreads[int, None] = JobThreads([1, 2, 3, 4, 5], work, 3)
    with pytest.raises(KeyError):
        list(jobs.run(lambda: None))
    assert alive() == []


def test_a_tick_that_raises_ends_all_jobs() -> None:
    def tick() -> None:
        raise InterruptedError

    jobs: JobThreads[int, bool] = JobThreads([1], lambda _: jobs.stop.wait(10), 1)
    with pytest.raises(InterruptedError):
        list(jobs.run(tick))
    assert alive() == []
