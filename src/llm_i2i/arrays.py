"""Types of arrays that signatures share; shapes and meanings stand in the docstrings."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = np.ndarray[Any, Any]  # any dtype, as numba's kernels take them
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
