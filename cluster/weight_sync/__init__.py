"""Weights from the learner to the engines: transport, checksums, verification."""
