"""Crew: who does the jobs of a run: actors of Ray Data, each with a model of its own, or this process."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ...encoders import VideoLLM
from ..cluster.connect import connect
from ..cluster.settings import ClusterSettings
from ..config import EngineConfig
from .settings import BatchSettings
from .work import Done, Job, OnTime, Worker

_POLL_S = 0.5
_STORE_BYTES = 128 * 2**20  # jobs and what comes back are a few lines of text each


class Crew(ABC):
    """Does jobs. Promises: what comes back is of a job that was given, each once at most. ValueError where there can
    be no worker: a model that does not load, above all."""

    @abstractmethod
    def work(self, jobs: Sequence[Job], on_time: OnTime) -> Iterator[Done]:
        """Does the jobs, in about this order. on_time: called while they are done, from any thread."""


class Here(Crew):
    """This process, one job after another."""

    def __init__(self, config: EngineConfig, settings: BatchSettings, *, model: VideoLLM | None = None) -> None:
        self._config, self._settings, self._model = config, settings, model

    def work(self, jobs: Sequence[Job], on_time: OnTime) -> Iterator[Done]:
        worker = Worker(self._config, self._settings, model=self._model, on_time=on_time)
        try:
            for job in jobs:
                yield worker.do(job)
        finally:
            worker.close()


class RayCrew(Crew):
    """Actors of Ray Data on this machine or a cluster, each with an engine of its own, loaded once.

    The videos and the folder of results must be where all machines see them under one name. What an actor is at when
    it dies, Ray has done again by another: how often is the worker's to count.

    address: of a cluster; None: a Ray of this process's own.
    """

    def __init__(self, config: EngineConfig, settings: BatchSettings, *, num_workers: int, address: str | None) -> None:
        if num_workers < 1:
            raise ValueError(f"a batch needs a worker at least; got {num_workers}")
        self._config, self._settings = config, settings
        self._num_workers, self._address = num_workers, address

    def work(self, jobs: Sequence[Job], on_time: OnTime) -> Iterator[Done]:
        with connect(self._address, ClusterSettings(object_store_bytes=_STORE_BYTES)):
            import ray

            board = ray.remote(num_cpus=0)(_Board).remote()
            with _quiet_data(), _polled(board, on_time):
                rows = [{"job": job.to_text()} for job in jobs]
                # A block each: what is shared out, what is done again, and what comes back is one job.
                todo = ray.data.from_items(rows, override_num_blocks=len(rows))
                done = todo.map(
                    _Actor,  # type: ignore[arg-type]  # a class is made first, and then called
                    fn_constructor_kwargs={
                        "config": self._config,
                        "settings": self._settings,
                        "board": board,
                        "num_threads": int(self._share("CPU") or 1),
                    },
                    compute=ray.data.ActorPoolStrategy(
                        size=min(self._num_workers, len(rows)), max_tasks_in_flight_per_actor=1
                    ),
                    num_cpus=self._num_cpus(),
                    num_gpus=self._num_gpus(),
                )
                for batch in done.iter_batches(batch_size=None, prefetch_batches=0, batch_format="numpy"):
                    for done_text, refusal in zip(batch["done"], batch["refusal"], strict=True):
                        if refusal:
                            raise ValueError(str(refusal))
                        yield Done.from_text(str(done_text))

    def _share(self, resource: str) -> float:
        import ray

        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        return resources.get(resource, 0.0) / self._num_workers

    def _num_cpus(self) -> float:
        """On this machine all that there are; of a cluster that others use too, one each."""
        share = self._share("CPU")
        return min(share, 1.0) if self._address is not None or share < 1 else float(int(share))

    def _num_gpus(self) -> float:
        return 0.0 if self._config.device == "cpu" else min(1.0, self._share("GPU"))


class _Actor:
    """A worker, as Ray Data makes and calls it.

    The model is loaded with the first job: what keeps it from being loaded is an answer then. Raised where actors are
    made, it would have Ray try again and again.
    """

    def __init__(self, config: EngineConfig, settings: BatchSettings, board: Any, num_threads: int) -> None:
        self._config, self._settings, self._num_threads = config, settings, num_threads
        self._board = board
        self._worker: Worker | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            worker = self._worker = self._worker or self._made()
        except ValueError as error:
            return {"done": "", "refusal": str(error)}
        return {"done": worker.do(Job.from_text(str(row["job"]))).to_text(), "refusal": ""}

    def _made(self) -> Worker:
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        return Worker(self._config, self._settings, on_time=self._tell, num_threads=self._num_threads)

    def _tell(self, content: str, chunk: int, done_s: float) -> None:
        self._board.tell.remote(content, chunk, done_s)


class _Board:
    """Where workers write how far they are, and the run reads it."""

    def __init__(self) -> None:
        self._news: dict[tuple[str, int], float] = {}

    def tell(self, content: str, chunk: int, done_s: float) -> None:
        self._news[content, chunk] = done_s

    def take(self) -> list[tuple[str, int, float]]:
        news, self._news = self._news, {}
        return [(content, chunk, done_s) for (content, chunk), done_s in news.items()]


@contextmanager
def _polled(board: Any, on_time: OnTime) -> Iterator[None]:
    """Meanwhile a thread tells what is on the board."""
    import ray

    is_over = threading.Event()

    def poll() -> None:
        while not is_over.wait(_POLL_S):
            try:
                for one in ray.get(board.take.remote(), timeout=10):
                    on_time(*one)
            except ray.exceptions.RayError:
                continue

    thread = threading.Thread(target=poll, name="batch-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@contextmanager
def _quiet_data() -> Iterator[None]:
    """Ray Data's own bars and words are off."""
    import ray

    context, logger = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    wanted = {"enable_progress_bars": False, "print_on_execution_start": False}
    before = {name: getattr(context, name) for name in wanted}
    level = logger.level
    try:
        for name, value in wanted.items():
            setattr(context, name, value)
        logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)
        logger.setLevel(level)
