"""Several devices, and a device and its host: what crosses the link, one more boundary."""

from iosim.links.asked import EXCHANGES, LinkAsked, way_of
from iosim.links.floor import SharedFloor, shared_floor
from iosim.links.offload import OFFLOADS
from iosim.links.rate import NAMES, Far, Link, far_of, link_of
from iosim.links.states import gathered
from iosim.links.way import Least, Proven, Recompute, Share, Step, Told, Way

__all__ = [
    "EXCHANGES",
    "NAMES",
    "OFFLOADS",
    "Far",
    "Least",
    "Link",
    "LinkAsked",
    "Proven",
    "Recompute",
    "Share",
    "SharedFloor",
    "Step",
    "Told",
    "Way",
    "far_of",
    "gathered",
    "link_of",
    "shared_floor",
    "way_of",
]
