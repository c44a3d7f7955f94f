"""A second start of the demo."""

from __future__ import annotations

import time
from pathlib import Path

from wiring import PROJECT, give_project, make_services

from ml_backend.demo.run import try_training_again


def test_a_training_that_failed_in_an_earlier_start_is_tried_at_once(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    later = time.time() + 900
    try:
        try_training_again(services.store, PROJECT)  # unknown yet: the first start
        assert services.store.project(PROJECT) is None
        give_project(services, train_error="The process ended with code -9.", retry_at=later, failed_digest="d")
        before = services.store.project(PROJECT)
        try_training_again(services.store, PROJECT)
        found = services.store.project(PROJECT)
        assert before
        assert found
        assert (found.wakes, found.retry_at) == (before.wakes + 1, None)
        assert found.train_requested_at is not None
        # Nothing failed: nothing is asked for.
        services.store.update_project(PROJECT, train_error="", train_requested_at=None)
        try_training_again(services.store, PROJECT)
        after = services.store.project(PROJECT)
        assert after
        assert (after.wakes, after.train_requested_at) == (found.wakes, None)
    finally:
        services.store.close()
