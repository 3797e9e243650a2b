"""The joints of a hand in MediaPipe's order: names, fingers, the root and the reference bone."""

from __future__ import annotations

WRIST, MIDDLE_MCP = 0, 9
REFERENCE_BONE = (WRIST, MIDDLE_MCP)
FINGERS: dict[str, tuple[int, int, int, int]] = {
    "thumb": (1, 2, 3, 4),
    "index": (5, 6, 7, 8),
    "middle": (9, 10, 11, 12),
    "ring": (13, 14, 15, 16),
    "pinky": (17, 18, 19, 20),
}
JOINT_NAMES: tuple[str, ...] = (
    "wrist",
    *(f"thumb_{part}" for part in ("cmc", "mcp", "ip", "tip")),
    *(f"{finger}_{part}" for finger in list(FINGERS)[1:] for part in ("mcp", "pip", "dip", "tip")),
)
