"""The same study by other means, written plainly, as people write it without this package (extra `peers`).

`plain` has the steps of the paper in pydicom, NumPy and OpenCV; `means` what runs its networks: PyTorch eager (one
image after the other, and in batches) and compiled, ONNX Runtime and OpenVINO as they are when nothing is set. A peer
is timed only where it gives the grades of this package in FP32 on the study that is timed.
"""

from spinescore.benchmarks.peers.trial import PEERS, Agreement, Peer, open_peers, own_agreement, reference_report

__all__ = ["PEERS", "Agreement", "Peer", "open_peers", "own_agreement", "reference_report"]
