"""What `import tensorrt` finds in a worker under test: a fake of the version FAKE_TENSORRT names.

FAKE_WORLD holds what is true of its machine as JSON; what was done to it is written to FAKE_CALLS when Python ends.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).parent.parent))

import trt_fake

found = trt_fake.module(os.environ["FAKE_TENSORRT"])
for key, value in json.loads(os.environ.get("FAKE_WORLD", "{}")).items():
    setattr(found.world, key, value)
sys.modules["tensorrt"] = found
log = os.environ.get("FAKE_CALLS")
if log:
    write = Path(log).write_text
    atexit.register(lambda: write(json.dumps(found.world.calls, default=str)))
