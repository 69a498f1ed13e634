"""Patterns of keys mean what ``glob.glob`` means by them in a folder with files of these names."""

from __future__ import annotations

import contextlib
import glob
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from torch_s3io.store.key_patterns import compiled, fixed_part, is_pattern

PATTERNS = [
    *("*a*b", "*a*[.b]*1", "**a**", "*]*-*", "?*?*", "a*a*a"),
    *("*", "?", "a*", "*a", "*/*", "*/?", ".*", "**/.*", "*.*", "a[", "**a"),
    *("**", "**/*", "*/**", "**/a*", "**/**/*", "**/[ab1]", "a/**"),
    *("[ab]", "[!a]*", "[]]*", "[!]]*", "[a-b]*", "[b-a]*", "[!b-a]*", "[a-]*", "[-a]*", "[.]*"),
]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Of files in the current folder, with characters that patterns have."""
    generator, found = random.Random(1), []
    with pytest.MonkeyPatch.context() as patch:  # contextlib.chdir is Python 3.11's
        patch.chdir(tmp_path_factory.mktemp("files"))
        for _ in range(300):
            lengths = [generator.randint(1, 3) for _ in range(generator.randint(1, 3))]
            parts = ["".join(generator.choices("ab.]-[!1\n", k=length)) for length in lengths]
            with contextlib.suppress(OSError):  # a file is in the place of a folder
                os.makedirs(os.path.join(*parts[:-1], "."), exist_ok=True)
                Path(*parts).open("x").close()
                found.append("/".join(parts))
        yield [name for name in found if not {".", ".."} & set(name.split("/"))]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_keys_match_as_files_do(names, pattern):
    wanted = {name for name in glob.glob(pattern, recursive=True) if os.path.isfile(name)}
    assert {name for name in names if compiled(pattern).fullmatch(name)} == wanted & set(names)
    assert is_pattern(pattern)
    assert all(name.startswith(fixed_part(pattern)) for name in wanted)


def test_a_long_name_is_looked_at_once():
    """It would take years, if each star tried each length."""
    assert not compiled("*a" * 20 + "b").fullmatch("a" * 1024)
    assert compiled("x/**/" + "*a" * 20 + "/b").fullmatch("x/" + "y/" * 400 + "a" * 200 + "/b")
