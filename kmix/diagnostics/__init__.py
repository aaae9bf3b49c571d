"""Is what enters the network what you meant, does it help, and what does it change in the model?

scikit-learn, SciPy, Matplotlib and pandas are imported where they are used; importing kmix does not.
`pip install "kmix[diagnostics]"` installs them, in a checkout `pip install ".[diagnostics]"`.
"""

from kmix.diagnostics.comparison import Comparison, compare
from kmix.diagnostics.inspection import Inspection, inspect
from kmix.diagnostics.interpolation import Interpolation, interpolation

__all__ = ["Comparison", "Inspection", "Interpolation", "compare", "inspect", "interpolation"]
