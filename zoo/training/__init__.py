"""The trainer: configuration in, checkpoints and reports out."""
