"""adstool: the machine-learning side of an ads platform, from raw logs to a ranked slate."""

import os

__version__ = "0.1.0"

# Libraries that would report to their makers how they are used, over the network and by files in the home
# folder, are asked not to before any is imported; whoever wants to sets the variable to something else.
for _name, _off in (
    ("ORT_DISABLE_TELEMETRY", "1"),  # ONNX Runtime from 1.29 on
    ("HF_HUB_DISABLE_TELEMETRY", "1"),  # below open_clip and transformers
    ("RAY_USAGE_STATS_ENABLED", "0"),
):
    os.environ.setdefault(_name, _off)
