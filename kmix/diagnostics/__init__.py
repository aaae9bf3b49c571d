"""Does it help? What training with kmix changes, on held-out data.

scikit-learn, SciPy, Matplotlib and pandas are imported where they are used; importing kmix does not.
`pip install kmix[diagnostics]` installs them.
"""

from kmix.diagnostics.comparison import Comparison, compare

__all__ = ["Comparison", "compare"]
