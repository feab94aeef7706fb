"""Real images: sets that come with packages, and files that people have, read without running anything in them."""

from .augment import augmented
from .catalogue import DATA_SETS, DataSet, load
from .download import fetch
from .packaged import digits, held_out, mnist_5k, split

__all__ = ["DATA_SETS", "DataSet", "augmented", "digits", "fetch", "held_out", "load", "mnist_5k", "split"]
