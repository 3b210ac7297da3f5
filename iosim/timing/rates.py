"""What the time model takes from a device file: rates per clock and core, sizes, latencies."""

from __future__ import annotations

from dataclasses import dataclass

from iosim.errors import AbsentError
from iosim.machine import Device, MemoryLevel

#: memory latency in ns, (last cache, main memory), by architecture: what has been measured comes from single boards.
#: Ampere and Ada: gpu-benches on A100 and L40 (near and far partition averaged); Hopper: gpu-benches on H100 PCIe;
#: consumer Blackwell: RTX 5080 at 2,617 MHz, arXiv 2507.10789; data-centre Blackwell: nobody measured it, as Hopper.
LATENCY_NS = {
    "ampere": (213.0, 404.0),
    "ada": (111.0, 253.0),
    "hopper": (217.0, 372.0),
    "blackwell": (217.0, 372.0),
    "blackwell-consumer": (137.0, 335.0),
}
#: ns from one small kernel of a graph to the next, by architecture: gpu-benches gpu-small-kernels with graphs (64 KB at
#: its best block size: 49 GB/s on A100, 70 on L40, 52 on H200); Blackwell: nobody measured it, as Hopper and Ada
LAUNCH_NS = {"ampere": 1337.0, "ada": 936.0, "hopper": 1260.0, "blackwell": 1260.0, "blackwell-consumer": 936.0}
#: ns that the host takes to launch a kernel: arXiv 2504.11750 (recalled, not re-read), Grace with GH200, and x86 with H100
HOST_LAUNCH_NS = {"NVLink-C2C": 2771.6, "PCIe": 2374.6}
#: ns between the moments at which a captured graph can begin again, read from the tables of B200, B300, GB200 and GB300:
#: times below 60 us are its multiples (and those of RTX PRO 6000, whose launches nobody measured apart)
REPLAY_STEP_NS = {"blackwell": 2048.0}
#: by how much of itself the time of a call differs between repetitions. Assumed: readings cluster to 2 % at 10 us
REPLAY_SPREAD = 0.03
#: 32-bit integer instructions per clock and core: 64 from Volta on (CUDA programming guide, arithmetic throughput);
#: consumer Blackwell's lanes all do both (RTX Blackwell whitepaper)
INTEGER_LANES = {"blackwell-consumer": 128.0}
#: resident threads per core: CUDA programming guide, technical specifications per compute capability
THREADS_PER_CORE = {"ada": 1536, "blackwell-consumer": 1536}
#: main memories whose boards hold the highest clock in short bursts; boards with GDDR are rated at what they hold
STACKED = "HBM"


@dataclass(frozen=True, slots=True)
class Rates:
    """A device as the time model sees it."""

    cores: int
    """cores"""
    capability: str
    """CUDA compute capability, by which kernels choose tiles; empty elsewhere"""
    clock_hz: float
    """clock of short bursts: the highest one of HBM boards, the rated one of others"""
    matrix_flop_per_clk: float
    """16-bit matrix FLOP per clock and core"""
    exp_per_clk: float
    """exponentials per clock and core"""
    lanes: float
    """fp32 instructions per clock and core"""
    integer_lanes: float
    """integer instructions per clock and core"""
    hbm_bytes_per_s: float
    """datasheet bandwidth of the main memory"""
    l2_bytes_per_clk: float
    """reads from the last cache per clock and core"""
    l2_usable_bytes: float
    """capacity of the last cache over the copies that partitions keep of data read once"""
    l2_warm_bytes: float
    """of it, what may still hold bytes of the call before: all, or nothing for a cold start"""
    l2_latency_s: float
    """of a hit in the last cache"""
    hbm_latency_s: float
    """of a read from main memory"""
    launch_s: float
    """from one small kernel of a graph to the next"""
    host_launch_s: float
    """the host's part of a launch"""
    replay_step_s: float
    """raster on which repetitions of a captured graph begin; 0: none"""
    replay_spread: float
    """share of its time by which a call differs between repetitions"""
    threads_per_core: int
    """resident threads of a core"""
    shared_bytes: int
    """shared memory of a core"""
    matrix_burst: float
    """rate of the fastest matrix product over that of the matrix units at this clock; 1 if not known"""
    sustained: float
    """clock that the power limit leaves a matrix product in the long run, over that of short bursts; 1 if not known"""

    @property
    def l2_bytes_per_s(self) -> float:
        """Reads from the last cache by all cores."""
        return self.l2_bytes_per_clk * self.cores * self.clock_hz


def rates_of(device: Device) -> Rates:
    """The rates of a device.

    Raises:
        AbsentError: the file lacks a fact that the model needs, or has an architecture nobody calibrated.
    """
    if device.architecture not in LATENCY_NS:
        raise AbsentError(f"no time model for the architecture {device.architecture!r} of {device.name}", device.file)
    cache = device.cache_before("hbm")
    if cache is None or cache.capacity_bytes is None:
        raise AbsentError(f"{device.name}: the last cache is not known", device.file)
    clock = _burst_clock(device)
    l2_ns, hbm_ns = LATENCY_NS[device.architecture]
    burst, sustained = device.facts.get("other.gemm_burst"), device.facts.get("other.gemm_sustained")
    usable = cache.capacity_bytes * cache.instances / _copies(cache)
    matrix = _per_clk(device, "matrix", ("bf16", "fp16"))
    return Rates(
        cores=device.cores,
        capability=device.compute_capability,
        clock_hz=clock,
        matrix_flop_per_clk=matrix,
        exp_per_clk=_per_clk(device, "exp", ("fp32",)),
        lanes=_per_clk(device, "vector", ("fp32",)) / 2,
        integer_lanes=INTEGER_LANES.get(device.architecture, 64.0),
        hbm_bytes_per_s=device.bandwidth_bytes_per_s("hbm"),
        l2_bytes_per_clk=_l2_per_clk(device, cache, clock),
        l2_usable_bytes=usable,
        l2_warm_bytes=usable,
        l2_latency_s=l2_ns * 1e-9,
        hbm_latency_s=hbm_ns * 1e-9,
        host_launch_s=_host_launch_ns(device) * 1e-9,
        replay_spread=REPLAY_SPREAD,
        replay_step_s=REPLAY_STEP_NS.get(device.architecture, 0.0) * 1e-9,
        launch_s=LAUNCH_NS[device.architecture] * 1e-9,
        threads_per_core=THREADS_PER_CORE.get(device.architecture, 2048),
        shared_bytes=device.level("shared").capacity_bytes or 0,
        matrix_burst=burst.value / (device.cores * matrix * clock) if burst else 1.0,
        sustained=sustained.value / burst.value if burst and sustained else 1.0,
    )


def _host_launch_ns(device: Device) -> float:
    link = device.level("host").technology if device.has_level("host") else ""
    return HOST_LAUNCH_NS.get(link, HOST_LAUNCH_NS["PCIe"])


def _burst_clock(device: Device) -> float:
    rated, highest = device.clock_hz, device.max_clock_hz
    stacked = device.level("hbm").technology.startswith(STACKED)
    clock = (highest or rated) if stacked else (rated or highest)
    if clock is None:
        raise AbsentError(f"{device.name}: no clock is known", device.file)
    return clock


def _per_clk(device: Device, unit: str, dtypes: tuple[str, ...]) -> float:
    found = [u.ops_per_clk_per_core for u in device.units if u.name == unit and u.dtype in dtypes and not u.narrow]
    known = [rate for rate in found if rate]
    if not known:
        raise AbsentError(f"{device.name}: {unit}.{dtypes[0]}.ops_per_clk is not known", device.file)
    return max(known)


def _l2_per_clk(device: Device, cache: MemoryLevel, clock: float) -> float:
    if cache.bytes_per_clk_per_core:
        return cache.bytes_per_clk_per_core
    rate = cache.measured_bytes_per_s or cache.bandwidth_bytes_per_s
    if not rate:
        raise AbsentError(f"{device.name}: the rate of the last cache is not known", device.file)
    return rate / device.cores / clock


def _copies(cache: MemoryLevel) -> float:
    """Copies of a line read by one core: its home's, and its own partition's when that is another one."""
    return 1 + (cache.partitions - 1) / cache.partitions if cache.replicates else 1.0
