"""Numbers about artifacts and the verdicts on them: size, parity, accuracy, latency, memory; the gate."""
