"""The data sets: records of files, views of them, several as one."""
