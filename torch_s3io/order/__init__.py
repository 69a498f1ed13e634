"""Which records come when, and where in that order a loop and its workers are."""
