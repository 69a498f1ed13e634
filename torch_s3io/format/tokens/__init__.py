"""Files of tokens, and where the documents in them are."""
