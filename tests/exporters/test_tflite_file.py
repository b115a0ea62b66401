"""Files are packed as the format asks, whatever wrote them first."""

from __future__ import annotations

from tests.worker.conftest import tflite
from toolkit.exporters import tflite_file


def test_operator_codes_stand_where_older_readers_look_too() -> None:
    model = tflite_file.parse(tflite(int8=True))
    assert model.operatorCodes
    for code in model.operatorCodes:
        code.deprecatedBuiltinCode = 0  # as ai-edge-quantizer leaves them: ADD, to those readers
    model.operatorCodes.append(type(model.operatorCodes[0])(builtinCode=150))  # beyond what the old field holds
    found = tflite_file.parse(tflite_file.pack(model)).operatorCodes
    assert [code.deprecatedBuiltinCode for code in found] == [min(code.builtinCode, 127) for code in found]
    assert found[-1].deprecatedBuiltinCode == 127
