"""From a population to the records of its trials: program, batches, optimizer, checkpoints."""
