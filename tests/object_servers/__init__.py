"""Servers of S3 on the loopback, for tests: a real one, and one that fails as it is told."""
