"""The same study by other means, written plainly, as one would write it without this package (extra `peers`).

`plain` has the steps of the paper in pydicom, NumPy and OpenCV. `means` has the frameworks that run its networks:
PyTorch eager (one image after the other, and in batches) and compiled, ONNX Runtime and OpenVINO with their defaults. A
peer is timed only if it gives the grades of this package in FP32 on the timed study.
"""

from spinescore.benchmarks.peers.trial import PEERS, Agreement, Peer, open_peers, own_agreement, reference_report

__all__ = ["PEERS", "Agreement", "Peer", "open_peers", "own_agreement", "reference_report"]
