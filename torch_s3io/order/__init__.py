"""Which records come when, and where in that order a loop is. No input or output."""
