"""Device files of GPUs by the names that their drivers give."""

from __future__ import annotations

#: in the order in which they are tried: parts of the driver's name -> catalogue name
NAMES = (
    ("GH200", "gh200"), ("H200", "h200-sxm"), ("H100 PCIe", "h100-pcie"), ("H100", "h100-sxm5"), ("H800", "h800-sxm5"),
    ("H20", "h20"), ("A100-SXM4-80GB", "a100-sxm-80gb"), ("A100-SXM4-40GB", "a100-sxm-40gb"), ("A800", "a800-sxm-80gb"),
    ("GB200", "gb200"), ("GB300", "gb300"), ("B200", "b200-sxm"), ("B300", "b300-sxm"), ("GB10", "gb10"),
    ("L40S", "l40s"), ("L20", "l20"), ("A10G", ""), ("A10", "a10"), ("V100-SXM2-16GB", "v100-sxm2-16gb"),
    ("V100-SXM2-32GB", "v100-sxm2-32gb"), ("T4", "t4"), ("RTX PRO 6000 Blackwell", "rtx-pro-6000-blackwell"),
    ("RTX 5090", "rtx-5090"), ("RTX 4090", "rtx-4090"), ("RTX 3090", "rtx-3090"), ("RTX A6000", "rtx-a6000"),
    ("RTX A5000", "rtx-a5000"),
)  # fmt: skip


def device_of(board: str) -> str:
    """Catalogue name of a board by its driver's name; empty where there is none, never a guess between two.

    >>> device_of("NVIDIA H100 80GB HBM3"), device_of("NVIDIA H200"), device_of("NVIDIA A100-PCIE-40GB")
    ('h100-sxm5', 'h200-sxm', '')
    """
    words = board.replace(",", " ").split()
    for part, name in NAMES:
        if part in board and all(any(piece == word for word in words) for piece in part.split()):
            return name if "Laptop" not in board and "NVL" not in board else ""
    return ""
