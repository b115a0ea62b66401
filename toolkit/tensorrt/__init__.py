"""What Edgekit knows of TensorRT and Jetson: plain functions on ONNX graphs, texts and numbers; no engine runs here."""
