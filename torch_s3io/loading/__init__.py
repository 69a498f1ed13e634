"""From data sets to the training loop, and on to the device."""
