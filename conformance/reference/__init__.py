"""Float32 references for modules and draft steps, and the deviation of a number from its reference."""
