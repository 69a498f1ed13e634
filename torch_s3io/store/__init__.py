"""Files as objects, read and written whole, in ranges or in chunks."""
