"""Training by tensorflow-model-optimization, in a process of its own: `engine.tfmot_qat` starts it."""
