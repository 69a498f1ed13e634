"""Keyed permutations against their description, written down plainly, and torch.randperm."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import example, given

from torch_s3io import _C, ConfigError, RangeError

WORD = (1 << 64) - 1
MOST = 1 << 62


def mix64(word: int) -> int:
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB & WORD
    return word ^ (word >> 31)


def derived_key(seed: int, *path: int) -> int:
    golden = 0x9E3779B97F4A7C15
    key = mix64(seed + golden & WORD)
    for number in path:
        key = mix64((key ^ mix64(number + 0x6A09E667F3BCC909 & WORD)) + golden & WORD)
    return key


def table(size: int, key: int) -> list[int]:
    """Fisher and Yates' shuffle, drawing from SplitMix64."""
    values, state = list(range(size)), derived_key(key, size)
    for left in range(size, 1, -1):
        state = state + 0x9E3779B97F4A7C15 & WORD
        chosen = mix64(state) * left >> 64
        values[chosen], values[left - 1] = values[left - 1], values[chosen]
    return values


def network(size: int, key: int, position: int) -> int:
    """The Feistel network with cycle walking of csrc/order/permutation.h."""
    lefts = math.isqrt(size - 1) + 1
    rights = -(-size // lefts)
    while True:
        left, right = divmod(position, rights)
        for number in range(8):
            round_key = derived_key(key, size, number)
            if number % 2 == 0:
                left = (left + (mix64(right ^ round_key) * lefts >> 64)) % lefts
            else:
                right = (right + (mix64(left ^ round_key) * rights >> 64)) % rights
        position = left * rights + right
        if position < size:
            return position


@given(seed=st.integers(0, WORD), path=st.lists(st.integers(0, WORD), max_size=4))
def test_keys_are_derived_as_described(seed, path):
    assert _C.derive_key(seed, path) == derived_key(seed, *path)


@given(size=st.integers(0, 4096), key=st.integers(0, WORD))
@example(size=4096, key=1)
def test_a_small_permutation_is_the_table_that_its_description_says(size, key):
    permutation = _C.Permutation(size=size, key=key)
    assert permutation.fill(0, size).tolist() == table(size, key)


@given(
    size=st.integers(4097, MOST) | st.integers(4097, 10_000),
    key=st.integers(0, WORD),
    data=st.data(),
)
def test_a_large_permutation_is_the_network_that_its_description_says(size, key, data):
    permutation = _C.Permutation(size=size, key=key)
    first = data.draw(st.integers(0, size - 1))
    values = permutation.fill(first, min(20, size - first)).tolist()
    assert values == [network(size, key, first + index) for index in range(len(values))]
    assert values == [permutation.at(first + index) for index in range(len(values))]
    assert [permutation.position_of(value) - first for value in values] == list(range(len(values)))


def test_what_lies_outside_is_refused():
    permutation = _C.Permutation(size=10, key=0)
    assert len(permutation) == 10
    assert permutation.fill(10, 0).tolist() == []
    for call in (permutation.at, permutation.position_of):
        for number in (-1, 10, MOST):
            with pytest.raises(RangeError, match="10"):
                call(number)
    for first, count in ((-1, 2), (0, 11), (10, 1), (5, -1), (2**63 - 1, 2**63 - 1)):
        with pytest.raises(RangeError):
            permutation.fill(first, count)
    with pytest.raises(ConfigError, match="-5"):
        _C.Permutation(size=-5, key=0)


# Quality. Every test has fixed keys, so it always says the same. A statistic is given in standard
# deviations from what a uniformly random permutation has; torch.randperm must pass as well, so that
# the test is known to be fair.

SIZES = (4097, 5000, 10_007)  # the smallest networks: larger ones only get better


def ours(size: int, count: int) -> np.ndarray:
    return np.stack([_C.Permutation(size=size, key=key).fill(0, size) for key in range(count)])


def torchs(size: int, count: int) -> np.ndarray:
    generator = torch.Generator().manual_seed(5)
    return np.stack([torch.randperm(size, generator=generator).numpy() for _ in range(count)])


def chi_square(counts: np.ndarray, expected: np.ndarray | float, freedom: int) -> float:
    """The statistic as a normal deviate (Wilson and Hilferty, PNAS 17, 1931)."""
    statistic = float(((counts - expected) ** 2 / expected).sum())
    width = 2 / (9 * freedom)
    return ((statistic / freedom) ** (1 / 3) - (1 - width)) / math.sqrt(width)


def bin_sizes(size: int, bins: int) -> np.ndarray:
    return np.bincount(np.arange(size) * bins // size, minlength=bins)


def of_positions(permutations: np.ndarray) -> float:
    """Where the values of each part of [0, n) lie."""
    count, size = permutations.shape
    bins = 64
    lies = np.arange(size) * bins // size
    cells = np.bincount((lies * bins + lies[permutations]).ravel(), minlength=bins * bins)
    expected = count * np.outer(bin_sizes(size, bins), bin_sizes(size, bins)).ravel() / size
    return chi_square(cells, expected, (bins - 1) ** 2)


def of_serial_correlation(permutations: np.ndarray) -> float:
    """The mean, over keys, of the correlation of successive values: -1 / (n - 1) if random."""
    count, size = permutations.shape
    deviations = permutations - (size - 1) / 2
    products = (deviations * np.roll(deviations, 1, axis=1)).sum(axis=1)
    correlations = products / (size * (size**2 - 1) / 12)
    return float((correlations.mean() + 1 / (size - 1)) * math.sqrt(size * count))


def of_differences(permutations: np.ndarray, lag: int) -> float:
    """Differences of values `lag` positions apart, modulo n: each as often as any other."""
    count, size = permutations.shape
    differences = (permutations[:, lag:] - permutations[:, :-lag]) % size
    counts = np.bincount(differences.ravel(), minlength=size)
    assert counts[0] == 0
    return chi_square(counts[1:], count * (size - lag) / (size - 1), size - 2)


def of_a_pair(permutations: np.ndarray, first: int, second: int) -> float:
    """The values at two given positions, over keys: independent but for being different."""
    count, size = permutations.shape
    bins = 12
    lies = np.arange(size) * bins // size
    cells = np.bincount(
        lies[permutations[:, first]] * bins + lies[permutations[:, second]], minlength=bins**2
    )
    sizes = bin_sizes(size, bins)
    pairs = np.outer(sizes, sizes) - np.diag(sizes)
    return chi_square(cells, count * pairs.ravel() / (size * (size - 1)), bins**2 - 1)


def of_fixed_points(permutations: np.ndarray) -> float:
    """Values at their own position: one on average, variance one."""
    count, size = permutations.shape
    return float((np.sum(permutations == np.arange(size)) - count) / math.sqrt(count))


def of_neighbours(permutations: np.ndarray) -> float:
    """Values followed by the next one: (n - 1) / n on average, variance about one."""
    count, size = permutations.shape
    followed = np.sum(permutations[:, 1:] == permutations[:, :-1] + 1)
    return float((followed - count * (size - 1) / size) / math.sqrt(count))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("make", [ours, torchs])
def test_permutations_look_random_in_positions_pairs_and_differences(size, make):
    permutations = make(size, 1000)
    row = math.isqrt(size - 1) + 1  # positions of a network's row and column differ by about this
    statistics = {
        "positions": of_positions(permutations),
        "serial correlation": of_serial_correlation(permutations),
        "fixed points": of_fixed_points(permutations),
        "neighbours": of_neighbours(permutations),
        **{f"lag {lag}": of_differences(permutations, lag) for lag in (1, 2, row - 1, row)},
        **{
            f"positions {first} and {second}": of_a_pair(permutations, first, second)
            for first, second in (
                (0, 1),
                (0, row - 1),
                (0, row),
                (1, size - 1),
                (size - 2, size - 1),
            )
        },
    }
    assert {name: value for name, value in statistics.items() if abs(value) > 4} == {}


def test_the_statistics_see_what_is_not_random():
    size, count = 5000, 300
    permutations = ours(size, count)
    assert of_positions(np.sort(permutations.reshape(count, 10, -1)).reshape(count, -1)) > 20
    turned = (np.arange(size) + np.arange(count)[:, None]) % size
    assert of_serial_correlation(turned) > 100
    assert of_differences(turned, 1) > 20
    assert of_neighbours(turned) > 100
    assert of_fixed_points(np.tile(np.arange(size), (count, 1))) > 100
    twice = permutations.copy()
    twice[:, 1] = (twice[:, 0] + 1) % size
    assert of_a_pair(twice, 0, 1) > 20


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_every_order_of_a_few_values_is_about_equally_likely(size):
    orders = list(itertools.permutations(range(size)))
    keys = 1000 * len(orders)
    seen = Counter(
        tuple(_C.Permutation(size=size, key=key).fill(0, size).tolist()) for key in range(keys)
    )
    counts = np.array([seen[order] for order in orders])
    assert counts.min() > 0
    assert abs(chi_square(counts, 1000, len(orders) - 1)) < 4


@pytest.mark.parametrize("size", [1000, 10**9])
def test_epochs_have_nothing_to_do_with_one_another(size):
    """Correlation of values at the same positions, in orders of successive epochs and seeds."""
    count = 1000
    orders = [
        _C.RecordOrder.shuffled(size, seed).records(epoch, 0, count)
        for seed in range(5)
        for epoch in range(20)
    ]
    rows = np.stack(orders).astype(float)
    rows -= rows.mean(axis=1, keepdims=True)
    rows /= np.sqrt((rows**2).sum(axis=1, keepdims=True))
    # Without BLAS, which would make a thread that the check for leaks then finds.
    correlations = np.einsum("ik,jk->ij", rows, rows)
    pairs = correlations[np.triu_indices(len(orders), 1)]
    assert abs(pairs).max() < 5 / math.sqrt(count)
    assert abs(pairs.std() * math.sqrt(count) - 1) < 0.05
