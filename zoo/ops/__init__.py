"""Pure functions on arrays, and how each platform computes them."""
