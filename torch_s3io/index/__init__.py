"""Files that say where records are, so that nobody has to look for them again."""
