"""Looking at what a trained model does: run it over data, measure it, see inside it."""
