"""docs/object-storage.md: its snippets, run against a server on this machine."""

from __future__ import annotations

import numpy as np
from buckets import needs_s3, serving
from object_servers.fault_server import ACCESS_KEY, SECRET_KEY
from pages import Page
from record_sets import random_array

pytestmark = needs_s3
PAGE = Page("docs/object-storage.md")


def test_every_block_is_run():
    PAGE.check()


@PAGE.runs("Object storage", "python")
def test_the_first_snippet_reads_a_bucket(block):
    images = random_array("u1", 128, (3, 32, 32), 1)
    with serving() as server:
        for number, part in enumerate(np.split(images, 2)):
            server.buckets.put("data", f"train/{number}.bin", part.tobytes())
        names: dict[str, object] = {}
        keys = {"http://localhost:9000": server.endpoint, '"me"': repr(ACCESS_KEY)}
        PAGE.run(block, names, replaced={**keys, '"mine"': repr(SECRET_KEY)})
        assert names["images"].shape == (64, 3, 32, 32)
        assert len(names["dataset"]) == 2
