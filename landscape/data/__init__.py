"""The samples that a loss is the mean of: batches, how much each counts for, and how they are read."""
