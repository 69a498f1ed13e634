"""Tar archives, as webdataset writes and reads them: members of one name are a sample."""
