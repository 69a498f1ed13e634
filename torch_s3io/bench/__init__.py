"""Benchmarks of whole epochs, from configurations: ``python -m torch_s3io bench``.

config, parse    a configuration: frozen dataclasses, filled strictly from YAML
data             the files that are read, made if they are absent
sources          what yields batches: RecordDataset or FileStore
loop, counters   an emulated training loop, and what it cost, in a process of its own (child)
result, plot     JSON, a Markdown table, plots
compare          two results as ratios
seed_metrics     the same work with and without a pool, in turns
"""
