"""Augmentation on the device: pure functions of one uint8 image, its key and magnitudes.

An operation takes an image uint8 [H, W, C], C 1 or 3, and returns one of the same kind. Its
magnitudes may be traced, its shapes are static: every operation can be jitted and vmapped.
The version whose name begins with `random_` draws the magnitudes from a key. Keyed by
`zoo.data.augment.example_keys`, an example looks the same in the same epoch whatever batch
it is in and on whatever device.
"""
