"""reconcile: look at one project in Label Studio and do what is missing.

    sync      read what changed
    train     if enough is new or training was asked for; publish the version or keep it back
    decide    in stream mode, which of the tasks that arrived are worth labelling
    rank      if the model, the strategy or the pool changed
    follow up where more of an image is asked for that a task labelled in part: another task of it
    publish   keep a window of the best-ranked tasks in Label Studio, with masks
    tidy up   delete predictions, versions and masks that nobody needs any more
    trial     where nothing else is to be done: measure whether the encoder should learn

Webhook, timer, start-up and command line all lead here. Every step derives what to do from the host, the store and
the checkpoints, so a run that is killed anywhere is finished by the next one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from ml_backend.errors import (
    CheckpointError,
    ConfigurationError,
    FilesUnavailable,
    ImageError,
    MaskError,
    NextmaskError,
    TaskRefused,
    TrainingError,
    TrainingWaits,
)
from ml_backend.projects.services import Services
from ml_backend.projects.settings import keep_good_settings, last_good_settings, project_settings, read_settings
from ml_backend.system.disk import disk_full, is_full, shortage
from ml_backend.worker.decide import decide
from ml_backend.worker.follow_up import follow_up
from ml_backend.worker.look import Look
from ml_backend.worker.publish import publish
from ml_backend.worker.rank import rank
from ml_backend.worker.sync import retry_images, sync
from ml_backend.worker.tidy_up import tell_damaged_version, tell_failed_tasks, tidy_up
from ml_backend.worker.top_up import TopUp
from ml_backend.worker.train import train
from ml_backend.worker.trial import try_other_way

logger = logging.getLogger(__name__)

WAITING_TO_TRAIN = "waiting for another training"
"""Stage of a project that is at rest but for a training, which another project's comes before."""
_OF_ONE_STEP = (
    *(CheckpointError, ConfigurationError, FilesUnavailable, ImageError, MaskError, TaskRefused, TrainingError),
    TrainingWaits,  # this project is woken when its turn comes
)
"""What goes wrong with one step and leaves the others possible."""


def reconcile(services: Services, project_id: int, check: Callable[[], None], *, trial: bool = True) -> None:
    """Do everything that is missing for a project; see the module's docstring.

    Args:
        check: raises LeaseLost when this process no longer holds the project's lease; called before every write.
        trial: whether a trial may be made; where somebody waits for the end, none is.

    Raises:
        NextmaskError: what stands in the way; the caller keeps it and tries again later.
        DiskFull: there is too little room to begin, or there was none for what was to be written.
    """
    settings, store = services.settings, services.store
    if full := shortage(settings.local_folder):
        raise full  # while there is room to say so
    project = store.project(project_id)
    if project is None:
        return
    project = replace(project, extra_params=read_settings(settings, store, services.client, project))
    own, problem = project_settings(settings, store, project)
    if problem is None:
        keep_good_settings(store, project)
    elif last_good_settings(settings, store, project_id) is None:
        raise problem
    look = Look(replace(services, settings=own), project_id, check=check, meanwhile=TopUp())
    with tell_failed_tasks(look):
        _take_steps(look, trial=trial)
    if problem is not None:  # the queue goes on with the settings that were good last, and the project says why
        raise problem


def _take_steps(look: Look, *, trial: bool) -> None:
    """Take all steps, in order; where one of the middle ones fails, the others go on, and its error is raised then."""
    sync(look)
    tell_damaged_version(look)
    retry_images(look)
    problems = [_attempt(step, look) for step in (train, decide, rank, follow_up)]
    publish(look)
    tidy_up(look)
    if trial and not any(problems):
        problems.append(_attempt(try_other_way, look))
    for problem in reversed(problems):
        if problem is not None and not isinstance(problem, TrainingWaits):
            raise problem
    if look.undecided:
        look.store.wake(look.project_id)
    stage = WAITING_TO_TRAIN if any(problem is not None for problem in problems) else ""
    error = look.project.train_error
    look.store.update_project(look.project_id, state="failed" if error else "waiting", stage=stage, error=error)


def _attempt(step: Callable[[Look], None], look: Look) -> NextmaskError | None:
    """Take a step; where it fails, return why: that must not keep annotators from the queue that is there."""
    try:
        step(look)
    except _OF_ONE_STEP as error:
        if is_full(error):
            raise disk_full(look.settings.local_folder) from error
        return error
    except NextmaskError:  # the lease is lost, the host is away: nothing else can be done either
        raise
    except Exception as error:
        if is_full(error):
            raise disk_full(look.settings.local_folder) from error
        logger.exception("project=%s a step failed", look.project_id)
        return NextmaskError(f"Unexpected {type(error).__name__}; the log has the details.")
    return None
