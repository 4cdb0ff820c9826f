"""From a dataset's name to sharded batches on the devices."""
