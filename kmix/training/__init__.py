"""Training on mixed batches, in the step."""
