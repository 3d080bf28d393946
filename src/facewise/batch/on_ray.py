"""The Ray runner: the local runner's worker function in model actors on a cluster.

Ray Data distributes tasks, returns rows, applies back-pressure, and scales the actor pool. Only the
driver writes the table.
"""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Generator, Iterable
from itertools import islice
from typing import Any, Final

from facewise.batch.job import Job, Result, Task
from facewise.errors import FacewiseError, needs_extra

TASKS_PER_BLOCK: Final = 16
"""Tasks handed to an actor at once: few enough to balance the end of a wave."""

WAVE: Final = 2048
"""Tasks per actor in one Ray Data pipeline. Bounds how far ahead the driver lists (in proportion to
the actors), yet keeps the seconds a pipeline takes to start and stop small beside its work."""

RETRIES: Final = 3
"""Retries of a task whose actor died. Ray Data's default is unlimited: a picture that kills its
process would be retried forever, silently."""

RESTARTS: Final = 100
"""Restarts of an actor per wave: nodes come and go, but one that dies on start-up must give up."""


class _Actor:
    """A model actor: a worker that Ray places on a free core or GPU."""

    def __init__(self, job: Job) -> None:
        from facewise.batch.work import Annotator

        self._annotator = Annotator(job)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        results = [self._annotator(pickle.loads(task)) for task in batch["task"]]  # noqa: S301
        return {"result": [pickle.dumps(result) for result in results]}


def run(
    tasks: Iterable[Task], job: Job, workers: int | None = None
) -> Generator[Result, None, None]:
    """Run tasks on a cluster; results in any order.

    Uses the cluster this process is connected to, else the one named by RAY_ADDRESS, else starts
    one on this machine for the duration of the run.

    Args:
        tasks: taken a wave at a time.
        job: settings.
        workers: maximum number of actors; None: one per core (or GPU) of the cluster.

    Raises:
        MissingExtraError: Ray is not installed.
        FacewiseError: the cluster cannot be reached, or fails.
    """
    ray = import_ray()
    source = iter(tasks)
    with contextlib.ExitStack() as stack:
        if not ray.is_initialized():
            _connect(ray)
            stack.callback(ray.shutdown)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False  # ours counts images
        actors = workers or _size(ray, job)
        try:
            # Pickled as they are listed: as objects they take three times the memory.
            while wave := [pickle.dumps(task) for task in islice(source, WAVE * actors)]:
                yield from _run_wave(ray, wave, job, actors)
        except ray.exceptions.RayError as error:
            raise FacewiseError(
                f"the cluster failed ({_first_line(error)}): finished parts are kept; run the "
                "same command again, or finish the table with the engine local"
            ) from error


def import_ray() -> Any:
    """Ray's module.

    Raises:
        MissingExtraError: Ray is not installed.
    """
    # Ray's usage reports are opt-in here.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with needs_extra("the engine ray", "ray"):
        import ray
        import ray.data
    return ray


def _connect(ray: Any) -> None:
    try:
        ray.init(include_dashboard=False, log_to_driver=False)
    except Exception as error:  # Ray raises a bare Exception if a node does not come up
        with contextlib.suppress(Exception):
            ray.shutdown()
        raise FacewiseError(
            f"no Ray could be reached or started ({_first_line(error)}): check RAY_ADDRESS and "
            "that this machine is not overloaded, or use the engine local"
        ) from error


def _run_wave(ray: Any, wave: list[bytes], job: Job, actors: int) -> Generator[Result, None, None]:
    rows = [{"task": task} for task in wave]
    blocks = -(-len(rows) // TASKS_PER_BLOCK) if len(rows) > actors * TASKS_PER_BLOCK else len(rows)
    resources = {"num_gpus": 1} if uses_gpu(job) else {"num_cpus": 1}
    results = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
        _Actor,
        fn_constructor_args=(job,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(actors, len(wave))),
        max_task_retries=RETRIES,
        max_restarts=RESTARTS,
        **resources,
    )
    for batch in results.iter_batches(batch_size=None, batch_format="pyarrow"):
        for value in batch.column("result"):
            yield pickle.loads(value.as_py())  # noqa: S301  made by our own actors


def uses_gpu(job: Job) -> bool:
    """Whether each actor needs a GPU rather than a core."""
    return any(name.startswith(("CUDA", "Tensorrt", "ROCM")) for name in job.providers or ())


def _size(ray: Any, job: Job) -> int:
    """Number of actors the cluster can hold now; for a cluster that scales up, set --workers."""
    return max(1, int(ray.cluster_resources().get("GPU" if uses_gpu(job) else "CPU", 1)))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
