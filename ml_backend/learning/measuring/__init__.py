"""How good a version is, how sure that is, and how two versions compare: numbers alone, without torch.

`counts` are the pixels of each held-out label, which measures are made of; `uncertainty` gives them intervals;
`comparison` finds the labels that two versions were both measured on; `words` says all of it to people.
"""

from ml_backend.learning.measuring.comparison import Comparison, compare
from ml_backend.learning.measuring.counts import Counts
from ml_backend.learning.measuring.uncertainty import Estimate, Estimates, estimates

__all__ = ["Comparison", "Counts", "Estimate", "Estimates", "compare", "estimates"]
