"""All that reaches behind the public API of torch, and of frameworks that build on it: a module per
subject. What they know of data sets is what torch knows; what follows from it lies elsewhere."""
