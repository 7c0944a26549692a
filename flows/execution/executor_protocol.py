"""What a worker needs of an executor, which works the jobs of one type."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from flows.declarations.client import Client
from jobs.job import Job, JobResult, Verdict


class ConnectionSource(Protocol):
    """Gives threads their connections to one client; see `flows.execution.connections.Connections`."""

    @property
    def shared(self) -> Any:
        """The connection that all threads use; `None` where each thread has its own, or nothing is open yet."""
        ...

    @property
    def settings(self) -> Any:
        """The settings of the client."""
        ...

    def get(self) -> Any:
        """Return the calling thread's connection, opening it if need be."""
        ...

    def drop(self) -> None:
        """Close the calling thread's own connection after trouble with it."""
        ...

    def forget_pace(self) -> None:
        """Forget the pace that was learned from refusals."""
        ...

    def forget_refusals(self) -> None:
        """Let one request ask where an answer of before still holds all back for long."""
        ...


class Executor(Protocol):
    """Works the jobs of one type. `execute`, `timed_out` and `on_settled` never raise."""

    @property
    def client(self) -> Client:
        """The remote side, whose trouble may pause it."""
        ...

    @property
    def timeout(self) -> float | None:
        """Seconds for one job; with `None` a job that hangs keeps its lease and its thread."""
        ...

    @property
    def sends_requests(self) -> bool:
        """Whether its jobs ask the remote side for anything."""
        ...

    @property
    def connections(self) -> ConnectionSource:
        """The connections of its client."""
        ...

    def judge(self, error: Exception) -> Verdict:
        """Decide what an exception of a request means."""
        ...

    def prepare(self, jobs: Sequence[Job]) -> None:
        """Read what the jobs of a batch need from the database, for all of them at once."""
        ...

    def execute(self, job: Job) -> JobResult:
        """Work one job."""
        ...

    def timed_out(self, job: Job, seconds: float) -> JobResult:
        """Return the result of a job whose thread was abandoned, and keep that thread from changing anything more.

        Called from another thread.

        Args:
            job: the claim.
            seconds: how long it was given; 0 where it is put back for another reason.
        """
        ...

    def on_settled(self, settled: Sequence[JobResult]) -> None:
        """Report finishes that were committed."""
        ...


class JobControl(NamedTuple):
    """What an executor may ask the worker that runs it.

    Args:
        is_lost: whether another worker has this claim by now.
        may_continue: whether a job may go on to its next phase under the same claim.
        restart_timeout: gives the calling thread's job its full time again.
    """

    is_lost: Callable[[Job], bool] = lambda _: False
    may_continue: Callable[[Job], bool] = lambda _: True
    restart_timeout: Callable[[], None] = lambda: None
