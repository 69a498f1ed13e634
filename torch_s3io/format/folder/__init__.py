"""Files as samples: each a sample, or an array, or an archive of arrays."""
