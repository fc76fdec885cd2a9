"""What modules and draft steps should compute, in float32, and how far a number is from it."""
