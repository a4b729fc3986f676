"""Data sets as TFDS builders that work without TensorFlow; one file per data set.

`prepared` brings them to this machine and reads their rows. Only the other modules import TFDS.
"""
