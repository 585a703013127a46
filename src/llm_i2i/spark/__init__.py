"""The table stages, I2I models and evaluation on a Spark cluster: the same functions on ranges of users or items.

Only modules that `runtime.engine: spark` selects import it: local work needs no pyspark. Spark moves rows; what is
computed from them are the local functions and kernels, in the same order of floating-point sums, so outputs are the
same bit for bit. The driver holds what is as large as the catalogue, never what is as large as the interactions,
unless it writes it as a stage's output.
"""

import llm_i2i.spark.session  # noqa: F401 - first, since it tells where pyspark is missing
