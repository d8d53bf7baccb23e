"""kopf, told to write nothing and to keep nothing."""

from typing import Any, cast

import kopf
import pytest

from imagewright.watch.quiet import watch_settings


def test_kopf_copies_and_writes_nothing_of_a_body() -> None:
    persistence = watch_settings().persistence
    raw = {"metadata": {"uid": "u"}, "spec": {"target": "t"}}
    body, patch = kopf.Body(cast("Any", raw)), kopf.Patch()
    essence = persistence.diffbase_storage.build(body=body)
    persistence.diffbase_storage.store(body=body, patch=patch, essence=essence)
    persistence.progress_storage.touch(body=body, patch=patch, value="now")
    assert dict(essence) == {}
    assert persistence.diffbase_storage.fetch(body=body) is None
    assert persistence.progress_storage.clear(essence=essence) is essence
    assert dict(patch) == {}


def test_an_object_that_nothing_happens_to_costs_kopf_no_task_for_long() -> None:
    assert 0 < watch_settings().queueing.idle_timeout < 1


@pytest.mark.parametrize("name", ["posting.enabled", "peering.mandatory"])
def test_kopf_posts_no_events_and_waits_for_no_peers(name: str) -> None:
    part, field = name.split(".")
    assert getattr(getattr(watch_settings(), part), field) is False
