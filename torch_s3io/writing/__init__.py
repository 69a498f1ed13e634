"""Data sets that are written: shards, their manifest, and files that are packed into them."""
