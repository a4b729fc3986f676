"""The parts that tasks generate their examples from."""
