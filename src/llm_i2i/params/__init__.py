"""The options of a run: their schema with every rule and explanation, how files are read and how they are written.

There are no defaults here for what the files say: profiles/ and params.yaml are the only places of a value.
"""

from llm_i2i.params.augmentation import Arm, FuseParams
from llm_i2i.params.data import (
    EncodeTextParams,
    IdentifyParams,
    RuntimeParams,
    SparkParams,
    SplitParams,
    TagParams,
    ValidateParams,
)
from llm_i2i.params.fields import Section
from llm_i2i.params.i2i import Model, TrainI2iParams, TunedParams
from llm_i2i.params.llm import (
    BaseModelParams,
    CompactParams,
    Control,
    EvaluateGeneratorParams,
    JudgeParams,
    LlmTraining,
    Negatives,
    ScoreParams,
    Softmax,
    SynthesizeParams,
    TrainDiscriminatorParams,
    TrainGeneratorParams,
)
from llm_i2i.params.monitor import MonitorParams
from llm_i2i.params.reading import load_params, read_params, read_profile
from llm_i2i.params.root import GateParams, ModelCardParams, Params
from llm_i2i.params.selection import RECIPE, SelectionRule
