"""Which version of which built-in operator a TFLite runtime reads: asked of the runtimes themselves.

A file that names one operator of one version, and nothing else, was given to each release: it is loaded or refused.
benchmarks/runtime_versions.py asks again and prints this table. Of versions that came with 2.8 to 2.11 TensorFlow's own
list (tensorflow/lite/tools/versioning/runtime_version.cc) says the same, but of GELU, which 2.8 reads already.
"""

from __future__ import annotations

from functools import cache

# in the order they came out: tflite-runtime, then ai-edge-litert; the last patch of each was asked
RELEASES = (
    *("2.7", "2.8", "2.9", "2.10", "2.11", "2.12", "2.13", "2.14"),
    *("litert-1.0", "litert-1.1", "litert-1.2", "litert-1.3", "litert-1.4"),
    *("litert-2.0", "litert-2.1", "litert-2.2", "litert-2.3"),
)
# operator, then "up to this version:since this release"; 2.7 was the oldest that was asked
TABLE = """
ABS 4:2.7 5:2.12
ADD 4:2.7 5:2.13 6:litert-2.2
ADD_N 1:2.7
ARG_MAX 2:2.7 3:2.9
ARG_MIN 2:2.7 3:2.9
ASSIGN_VARIABLE 1:2.7
ATAN2 1:2.10
AVERAGE_POOL_2D 3:2.7
BATCH_MATMUL 4:2.7
BATCH_TO_SPACE_ND 3:2.7 4:2.13
BIDIRECTIONAL_SEQUENCE_LSTM 3:2.7
BIDIRECTIONAL_SEQUENCE_RNN 3:2.7
BITCAST 1:2.13
BITWISE_XOR 1:2.13
BROADCAST_ARGS 1:2.7
BROADCAST_TO 3:2.7 4:litert-2.2
BUCKETIZE 1:2.8
CALL_ONCE 1:2.7
CAST 2:2.7 3:2.8 4:2.9 5:2.13 6:litert-1.0 7:litert-1.1 8:litert-2.1 9:litert-2.2
CEIL 1:2.7
COMPLEX_ABS 1:2.7
CONCATENATION 3:2.7 4:2.14 5:litert-2.1 7:litert-2.2
CONV_2D 5:2.7 6:2.9 7:2.12 8:litert-1.0
CONV_3D 1:2.7
CONV_3D_TRANSPOSE 1:2.7
COS 1:2.7 2:litert-2.2
CUMSUM 1:2.7
DENSIFY 1:2.7
DEPTHWISE_CONV_2D 6:2.7 7:2.13
DEPTH_TO_SPACE 2:2.7
DEQUANTIZE 5:2.7 6:litert-1.0 8:litert-2.1 9:litert-2.2
DILATE 1:litert-1.0
DIV 2:2.7
DYNAMIC_UPDATE_SLICE 1:2.9 2:litert-1.0 3:litert-1.1 4:litert-1.3 5:litert-2.1 6:litert-2.2
ELU 1:2.7
EMBEDDING_LOOKUP 3:2.7 4:litert-1.0 5:litert-2.1
EMBEDDING_LOOKUP_SPARSE 1:2.7
EQUAL 3:2.7 4:2.13 5:litert-2.1
EXP 1:2.7 2:2.13
EXPAND_DIMS 1:2.7
FAKE_QUANT 2:2.7
FILL 3:2.7 4:2.12 5:litert-2.2
FLOOR 1:2.7
FLOOR_DIV 2:2.7 3:2.13
FLOOR_MOD 1:2.7 2:2.13
FULLY_CONNECTED 9:2.7 10:2.13 13:litert-1.0 14:litert-2.1
GATHER 5:2.7 6:2.13 7:litert-1.0 8:litert-2.2
GATHER_ND 3:2.7 4:2.13 5:litert-1.0 6:litert-2.2
GELU 1:2.8 2:2.9 3:litert-2.2
GREATER 2:2.7
GREATER_EQUAL 2:2.7 3:2.13
HARD_SWISH 1:2.7
HASHTABLE 1:2.7
HASHTABLE_FIND 1:2.7
HASHTABLE_IMPORT 1:2.7
HASHTABLE_LOOKUP 1:2.7
HASHTABLE_SIZE 1:2.7
IF 1:2.7
IMAG 1:2.7
L2_NORMALIZATION 2:2.7
L2_POOL_2D 1:2.7
LEAKY_RELU 2:2.7
LESS 2:2.7 3:2.13
LESS_EQUAL 2:2.7
LOCAL_RESPONSE_NORMALIZATION 1:2.7
LOG 1:2.7 2:litert-1.0
LOGICAL_AND 1:2.7
LOGICAL_NOT 1:2.7
LOGICAL_OR 1:2.7
LOGISTIC 3:2.7
LOG_SOFTMAX 2:2.7
LSH_PROJECTION 1:2.7
LSTM 4:2.7
MATRIX_DIAG 1:2.7
MATRIX_SET_DIAG 1:2.7
MAXIMUM 4:2.7
MAX_POOL_2D 3:2.7
MEAN 3:2.7
MINIMUM 4:2.7
MIRROR_PAD 2:2.7 3:2.13
MUL 5:2.7 6:2.11 7:2.13 8:litert-2.2
MULTINOMIAL 1:2.8
NEG 1:2.7
NON_MAX_SUPPRESSION_V4 1:2.7
NON_MAX_SUPPRESSION_V5 1:2.7
NOT_EQUAL 3:2.7 4:litert-2.1
ONE_HOT 1:2.7
PACK 3:2.7 4:2.14 5:litert-2.2
PAD 4:2.7 5:litert-2.0 6:litert-2.2
PADV2 4:2.7 5:litert-2.0 6:litert-2.2
POW 1:2.7
PRELU 1:2.7
QUANTIZE 3:2.7 6:litert-2.1
RANDOM_STANDARD_NORMAL 1:2.7
RANDOM_UNIFORM 1:2.8
RANGE 1:2.7 2:2.14
RANK 1:2.7
READ_VARIABLE 1:2.7
REAL 1:2.7
REDUCE_ALL 1:2.7
REDUCE_ANY 1:2.7
REDUCE_MAX 3:2.7
REDUCE_MIN 3:2.7
REDUCE_PROD 2:2.7
REDUCE_WINDOW 1:litert-1.0
RELU 3:2.7
RELU6 3:2.7
RELU_0_TO_1 1:2.10
RELU_N1_TO_1 1:2.7
RESHAPE 1:2.7
RESIZE_BILINEAR 4:2.7
RESIZE_NEAREST_NEIGHBOR 4:2.7
REVERSE_SEQUENCE 1:2.7
REVERSE_V2 3:2.7 4:litert-2.2
RFFT2D 1:2.7
RIGHT_SHIFT 1:2.13
RNN 3:2.7
ROUND 1:2.7
RSQRT 2:2.7 3:litert-1.0
SCATTER_ND 1:2.7
SEGMENT_SUM 1:2.7
SELECT 2:2.7 3:2.12 4:2.14
SELECT_V2 1:2.7 2:2.14
SHAPE 1:2.7
SIGN 1:2.11 2:2.12
SIN 1:2.7 2:litert-2.2
SKIP_GRAM 1:2.7
SLICE 5:2.7 6:2.14 7:litert-2.1 8:litert-2.2
SOFTMAX 3:2.7 4:litert-2.2
SPACE_TO_BATCH_ND 3:2.7 4:2.13
SPACE_TO_DEPTH 2:2.7
SPARSE_TO_DENSE 3:2.7
SPLIT 4:2.7 5:litert-2.2
SPLIT_V 2:2.7 3:litert-2.2
SQRT 1:2.7 2:litert-2.0
SQUARE 1:2.7
SQUARED_DIFFERENCE 2:2.7
SQUEEZE 2:2.7
STABLEHLO_ADD 1:litert-1.0
STABLEHLO_AND 1:litert-1.1
STABLEHLO_CASE 1:litert-1.1
STABLEHLO_COMPOSITE 1:litert-1.0
STABLEHLO_GATHER 1:litert-1.0
STABLEHLO_MAXIMUM 1:litert-1.0
STABLEHLO_MINIMUM 1:litert-1.0
STABLEHLO_MULTIPLY 1:litert-1.0
STABLEHLO_PAD 1:litert-1.0
STABLEHLO_REDUCE_WINDOW 1:litert-1.0
STABLEHLO_RNG_BIT_GENERATOR 1:litert-1.0
STABLEHLO_SCATTER 1:litert-1.0
STABLEHLO_SHIFT_LEFT 1:litert-1.1
STRIDED_SLICE 6:2.7 8:2.14
SUB 5:2.7
SUM 2:2.7
SVDF 4:2.7
TANH 3:2.7
TILE 2:2.7 3:2.8
TOPK_V2 2:2.7 3:2.13
TRANSPOSE 5:2.7 6:2.12 7:litert-1.2 9:litert-2.2
TRANSPOSE_CONV 3:2.7 4:2.12 5:litert-1.0
UNIDIRECTIONAL_SEQUENCE_LSTM 3:2.7 4:2.12
UNIDIRECTIONAL_SEQUENCE_RNN 3:2.7
UNIQUE 1:2.7
UNPACK 4:2.7 5:litert-2.1 6:litert-2.2
UNSORTED_SEGMENT_MAX 1:2.10
UNSORTED_SEGMENT_MIN 1:2.11
UNSORTED_SEGMENT_PROD 1:2.10
UNSORTED_SEGMENT_SUM 1:2.10
VAR_HANDLE 1:2.7
WHERE 1:2.7 2:2.8
WHILE 1:2.7
ZEROS_LIKE 1:2.7
"""


@cache
def history(operator: str) -> dict[int, str]:
    """Version -> the release that first read it; empty for an operator that none reads."""
    for line in TABLE.splitlines():
        name, *entries = line.split() or [""]
        if name == operator:
            return {int(version): release for version, _, release in (entry.partition(":") for entry in entries)}
    return {}


def highest(operator: str, release: str) -> int:
    """The highest version of an operator that a release of RELEASES reads; 0 for none."""
    reached = RELEASES.index(release)
    return max((v for v, since in history(operator).items() if RELEASES.index(since) <= reached), default=0)


def first(operator: str, version: int) -> str:
    """The first release that reads this version; "" for none."""
    return next((since for v, since in sorted(history(operator).items()) if v >= version), "")
