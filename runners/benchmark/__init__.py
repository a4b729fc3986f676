"""Speed and memory of operators and architectures; `python -m runners.benchmark`."""
