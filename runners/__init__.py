"""Commands (`python -m runners.<name>`), and the packages that they are made of."""
