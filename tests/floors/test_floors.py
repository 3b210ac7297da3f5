"""Floors: published values, falsification by schedules, and what they must never do."""

from __future__ import annotations

from math import isqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iosim.attention import Attention, Shape, Types
from iosim.errors import UsageError
from iosim.floors import Floors, Memory, attention_floors, compulsory_bytes
from iosim.floors.bound import narrowest_bits
from iosim.floors.small_memory import l3, l4
from iosim.kernels import make_schedule
from iosim.masks import Grid, Tiling, bind


def problem(
    n_q: int, n_kv: int, d: int, d_v: int | None = None, mask: str = "full", heads: int = 1, kv_heads: int = 1,
    phase: str = "prefill", latent: bool = False, types: Types | None = None,
) -> Attention:  # fmt: skip
    shape = Shape(1, heads, kv_heads, d, d if d_v is None else d_v, latent)
    return Attention(shape, bind(mask, Grid((n_q,), (n_kv,))), types or Types(), phase)


def floors(asked: Attention, memory_elements: int, **options: bool) -> Floors:
    return attention_floors(asked, Memory("given", memory_elements * narrowest_bits(asked)), **options)


def value(found: Floors, name: str) -> int:
    return next(bound.value_elements for bound in found.bounds if bound.id == name)


def test_published_values_at_x_equal_m() -> None:
    """Oracle 20: the closed forms at X = M, which the best X can only raise."""
    found = floors(problem(4096, 4096, 64), 65_536)
    pairs, memory, d, e = 4096**2, 65_536, 64, 128
    assert pairs * d * e // memory - memory == 2_031_616 <= value(found, "L1")
    assert pairs * e * e / (memory + 2 * e * e) - memory == pytest.approx(2_730_666.67, abs=0.01)
    assert value(found, "L2") >= 2_730_666
    assert pairs * d * d // (4 * memory) - memory == 196_608 <= value(found, "L5")
    causal = problem(4096, 4096, 64, mask="causal")
    assert causal.counts().pairs == 8_390_656
    assert value(floors(causal, memory), "L1") >= 983_296


def test_small_memory_values() -> None:
    """Oracles 21 and 22: L3 is published at X = 2 M, and the best X gives a trifle more."""
    pairs = 1024 * 1024
    assert isqrt(4 * pairs**2 * 256**2 // 4096) - 2 * 4096 - pairs == 7_331_840
    assert 7_331_840 <= l3(pairs, 128, 128, 4096) <= 7_331_840 + 4096
    assert l4(pairs, 128, 4096) == pytest.approx(1_900_860.8, abs=1)
    assert l4(pairs, 128, 1024) == pytest.approx(4_878_969.6, abs=1)
    assert 268_402_688 <= l3(16_384**2, 64, 64, 16_384) <= 268_402_688 + 16_384


def test_flash2_touches_l3_at_four_d_squared() -> None:
    """Oracle 22: word-level FlashAttention-2 with 124 rows costs 1.047 of L3."""
    n, d, memory = 16_384, 64, 16_384
    rows = (memory - d - 2) // (2 * d + 3)
    streaming = n * d + -(-n // rows) * n * 2 * d + n * d
    assert (rows, streaming) == (124, 281_018_368)
    assert streaming / l3(n * n, d, d, memory) == pytest.approx(1.0470, abs=1e-4)
    assert floors(problem(n, n, d), memory).once_elements <= streaming


def test_the_literal_matmul_constant_is_not_used() -> None:
    """Oracle 23: a legal schedule of (4096, 4096, 64) at S = 16,384 moves 21,495,808 words."""
    m, k, s = 4096, 64, 16_384
    assert 2 * m * m * k // isqrt(s) + m * m == 33_554_432 > 21_495_808
    # L4 and L3 specialise to products: neither may exceed the schedule's words for QK^T alone
    assert l4(m * m, k, s) <= 21_495_808
    assert 2 * m * m * k // isqrt(s) - 2 * s == 16_744_448


def test_one_key_needs_neither_query_nor_key() -> None:
    """With N_q = N_kv = 1, O = V: the review's counterexample to the plain form of L0."""
    found = floors(problem(1, 1, 64, 32), 4096)
    assert (value(found, "L0r"), value(found, "L0w")) == (32, 32)
    causal = problem(8, 8, 4, mask="causal")  # query 0 sees one key
    assert value(floors(causal, 4096), "L0r") == 7 * 4 + 8 * 4 + 8 * 4
    with_lse = floors(causal, 4096, lse_output=True)
    assert (value(with_lse, "L0r"), value(with_lse, "L0w")) == (8 * 4 * 3, 8 * 4 + 8)


def test_shared_keys_count_once_and_a_latent_value_not_at_all() -> None:
    shared = floors(problem(16, 64, 8, heads=4, kv_heads=1), 4096)
    assert value(shared, "L0r") == 4 * 16 * 8 + 64 * 8 + 64 * 8
    latent = floors(problem(16, 64, 8, 6, heads=4, kv_heads=1, latent=True), 4096)
    assert value(latent, "L0r") == 4 * 16 * 8 + 64 * 8
    # each query sees its own key only, whatever the scores are: O is the slice of K that is V
    alone = floors(problem(10, 10, 6, 4, "window:1", heads=2, latent=True), 4096)
    assert value(alone, "L0r") == 10 * 4


def test_a_warm_cache_takes_its_capacity_off_each_side() -> None:
    asked = problem(64, 64, 8)
    cold, warm = compulsory_bytes(asked), compulsory_bytes(asked, 500)
    assert warm == (cold[0] - 500, cold[1] - 500)
    assert compulsory_bytes(asked, 1 << 30) == (0, 0)
    assert value(floors(asked, 100, warm=True), "L0r") == max(0, 3 * 64 * 8 - 100)


def test_backward_reads_neither_outputs_nor_statistics() -> None:
    found = floors(problem(64, 64, 8, phase="backward"), 64)
    assert value(found, "L0r") == 4 * 64 * 8
    assert value(found, "L0w") == 3 * 64 * 8
    assert {bound.id for bound in found.bounds} == {"L0r", "L0w", "L6", "L7"}


def test_a_memory_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError):
        attention_floors(problem(4, 4, 4), Memory("given", 8))


shapes = st.tuples(
    st.integers(1, 600), st.integers(1, 600), st.integers(1, 64), st.integers(1, 64),
    st.sampled_from(["full", "causal", "window:7", "window:100,sink=4"]), st.integers(1, 64), st.integers(1, 64),
)  # fmt: skip


@given(shapes, st.sampled_from(["flash1", "flash2", "split-kv"]), st.integers(1, 4))
def test_no_schedule_whose_tiles_fit_goes_under_its_floors(case: tuple, kernel: str, group: int) -> None:
    """Property 26 on schedules: words moved by FlashAttention-1, -2 and split-KV against every floor."""
    n_q, n_kv, d, d_v, mask, rows, cols = case
    asked = problem(min(n_q, n_kv), n_kv, d, d_v, mask, heads=group, kv_heads=1)
    settings = {"splits": 2} if kernel == "split-kv" and -(-n_kv // cols) > 1 and mask == "full" else {}
    schedule = make_schedule(asked, None, kernel, Tiling((rows,), (cols,)), settings)
    # words of a work item: the Q and O tiles, one K and V tile, the scores and the statistics
    memory = rows * (d + d_v + 2) + cols * (d + d_v) + rows * cols
    found = floors(asked, memory)
    words = schedule.traffic.read_elements + schedule.traffic.write_elements
    assert found.any_elements <= found.standard_elements <= found.once_elements <= words
    assert found.any_bytes <= found.standard_bytes <= found.once_bytes <= schedule.traffic.total_bytes


@given(st.integers(1, 300), st.integers(2, 300), st.integers(1, 64), st.integers(1, 40))
def test_word_level_streaming_is_above_every_floor(n_q: int, n_kv: int, d: int, rows: int) -> None:
    """The tightest known schedule: `rows` queries and outputs resident, one key or value at a time."""
    memory = rows * (2 * d + 3) + d + 2
    words = n_q * d + -(-n_q // rows) * n_kv * 2 * d + n_q * d
    assert floors(problem(n_q, n_kv, d), memory).once_elements <= words


@given(shapes)
def test_floors_grow_with_the_problem_and_fall_with_memory(case: tuple) -> None:
    n_q, n_kv, d, d_v, _, memory, more = case
    asked, longer = problem(n_q, n_kv, d, d_v), problem(n_q, n_kv + 1, d, d_v)
    for name in ("any_elements", "standard_elements", "once_elements"):
        assert getattr(floors(asked, memory), name) <= getattr(floors(longer, memory), name)
        assert getattr(floors(asked, memory + more), name) <= getattr(floors(asked, memory), name)


@given(shapes, st.sampled_from(["fp8", "bf16", "fp32"]), st.sampled_from(["fp8", "bf16"]))
def test_floors_in_bytes_use_the_narrowest_width(case: tuple, dtype: str, kv_dtype: str) -> None:
    """Bytes never exceed elements at the widest width, and are at least elements at the narrowest for L0."""
    n_q, n_kv, d, d_v, _, memory, _ = case
    asked = problem(n_q, n_kv, d, d_v, types=Types.of(dtype, kv_dtype))
    widths = [asked.types.bits(tensor) for tensor in ("Q", "K", "V", "O")]
    found = floors(asked, memory)
    assert found.any_elements * min(widths) // 8 <= found.any_bytes <= found.any_elements * max(widths) // 8 + 4


def test_bounded_ratios_of_streaming_over_the_floors() -> None:
    """Property 29, for d = d_v >= 16: how tight the floors are at their best."""
    for d in (16, 32, 64, 128):
        for memory in (8 * d * d, 16 * d * d, 50 * d * d):
            n = max(4 * memory // d, 64)
            rows = (memory - d - 2) // (2 * d + 3)
            words = 2 * n * d + -(-n // rows) * n * 2 * d
            found = floors(problem(n, n, d), memory)
            assert words / (n * n * 2 * d * d / memory - memory) <= 2.8
            assert 2.0 <= words / (value(found, "L1") + n * d) <= 2.45
        for memory in (2 * d * d, 3 * d * d, 4 * d * d):
            n = 256 * d
            rows = (memory - d - 2) // (2 * d + 3)
            words = 2 * n * d + -(-n // rows) * n * 2 * d
            assert 1 <= words / floors(problem(n, n, d), memory).once_elements <= 1.35


def test_a_recomputing_kernel_may_go_under_l2_and_l3_but_not_under_l1() -> None:
    """Review 4.3: d_v split into chunks of d, scores recomputed for each; (d, d_v) = (64, 256), M = 58,112."""
    n, d, d_v, memory = 65_536, 64, 256, 58_112
    chunks = d_v // d
    rows = memory // (2 * d + 3)  # Q and one chunk of O resident
    words = 4_987_027_456  # the published count of that schedule
    found = floors(problem(n, n, d, d_v), memory)
    assert value(found, "L3") >= 7_107_596_147 > words
    assert found.standard_elements <= words
    assert words == pytest.approx(n * n * (chunks * d + d_v) / rows, rel=0.15)


def best_over_x(h: object, memory: int, top: int) -> int:
    return max([0] + [x * (h(memory + x) - 1) for x in range(1, top)])  # type: ignore[operator]


def up(a: int, b: int) -> int:
    return -(-a // b)


small = st.tuples(
    st.integers(2, 40), st.integers(2, 40), st.integers(1, 9), st.integers(1, 9), st.integers(1, 60), st.booleans()
)


@given(small, st.sampled_from([("fp4", "fp4"), ("fp8", "fp8"), ("bf16", "bf16"), ("bf16", "fp8"), ("bf16", "fp32")]))
def test_every_segmented_floor_is_its_formula_over_every_x(case: tuple, widths: tuple[str, str]) -> None:
    """The statements of the review, section 2, in elements and in bits, evaluated for every X."""
    n_q, n_kv, d, d_v, memory, latent = case
    d_v = min(d, d_v) if latent else d_v
    types = Types.of(*widths)
    b_q, b_k, b_o = types.bits("Q"), types.bits("K"), min(types.bits("O"), 32)
    b_v, b_p, narrow = (
        (0 if latent else b_k),
        min(types.bits("Q"), types.bits("K")),
        min(types.bits("Q"), types.bits("K")),
    )
    pairs, top = n_q * n_kv, n_q * n_kv + 2

    def formulas(q: int, k: int, v: int, o: int, gradients: tuple[int, int, int], b: int) -> dict[str, object]:
        r, c, row, column = q, k + v, q + o, k + v
        back_row, back_column = q + o + gradients[0], k + v + gradients[1] + gradients[2]
        return {
            "L1": lambda C: min(up(4 * r * c * pairs, C * C), up(b * pairs, C)),
            "L2": lambda C: up(4 * row * column * b * pairs, b * C * C + 4 * row * column * C),
            "L6": lambda C: min(up(4 * row * c * pairs, C * C), up(b * pairs, C)),
            "L7": lambda C: up(4 * back_row * back_column * b * pairs, b * C * C + 4 * back_row * back_column * C),
        }

    dv_words = 0 if latent else d_v
    words = formulas(d, d, dv_words, d_v, (d, d, dv_words), 1)
    bits = formulas(d * b_q, d * b_k, d_v * b_v, d_v * b_o, (d * b_q, d * b_q, dv_words * b_q), b_p)
    for phase, names in (("prefill", ("L1", "L2")), ("backward", ("L6", "L7"))):
        asked = problem(n_q, n_kv, d, d_v, phase=phase, latent=latent, types=types)
        found = {bound.id: bound for bound in floors(asked, memory).bounds}
        for name in names:
            assert found[name].value_elements == best_over_x(words[name], memory, top)
            assert found[name].value_bytes == best_over_x(bits[name], memory * narrow, b_p * pairs + 2) // 8


@given(small)
def test_the_floor_of_a_class_is_the_best_of_its_bounds(case: tuple) -> None:
    n_q, n_kv, d, d_v, memory, _ = case
    found = floors(problem(n_q, n_kv, d, d_v), memory)
    v = {bound.id: bound.value_elements for bound in found.bounds}
    standard = max(v["L0r"] + v["L0w"], v["L1"] + v["L0w"] if v["L1"] else 0, v["L4"])
    assert found.any_elements == v["L0r"] + v["L0w"]
    assert found.standard_elements == standard
    assert found.once_elements == max(standard, v["L2"], v["L3"])


@given(st.integers(2, 3000), st.integers(1, 9), st.integers(1, 9), st.integers(1, 60), st.integers(1, 5), st.booleans())
def test_l3_is_the_best_over_every_x(pairs: int, d: int, d_v: int, memory: int, cores: int, latent: bool) -> None:
    def at(x: int) -> int:
        scaled = 27 * (pairs * (d + d_v) * x) ** 2 // ((2 if latent else 1) * (memory + x) ** 3)
        return isqrt(scaled) - cores * x - pairs

    assert l3(pairs, d, d_v, memory, cores, latent) == max(0, *(at(x) for x in range(1, 8 * memory + 8)))


@given(
    st.integers(1, 80),
    st.integers(2, 300),
    st.integers(2, 64),
    st.integers(1, 8),
    st.integers(1, 40),
    st.integers(1, 3),
)
def test_a_latent_value_in_a_small_memory(n_q: int, n_kv: int, d: int, heads: int, rows: int, cores: int) -> None:
    """L3 with V a slice of K, on several cores: packed rows resident, keys streamed, is never below it."""
    d_v = max(1, d - 3)
    memory = rows * (d + d_v + 3) + d + 2
    words = heads * n_q * (d + d_v) + -(-heads * n_q // rows) * n_kv * d
    asked = problem(n_q, n_kv, d, d_v, heads=heads, latent=True)
    found = attention_floors(asked, Memory("given", 16 * memory, cores))
    assert value(found, "L3") <= found.once_elements <= words


def test_several_cores_say_what_is_counted() -> None:
    found = attention_floors(problem(512, 512, 16), Memory("core", 16 * 4096, 4))
    spoken = {bound.id for bound in found.bounds if any("multicast" in line for line in bound.conditions)}
    assert spoken == {"L1", "L2", "L3"}


def test_a_key_that_only_one_key_rows_use_is_not_needed_backward() -> None:
    """window:1 is the diagonal: dS is 0 there, so only dO is read and only dV carries anything."""
    found = floors(problem(32, 32, 8, mask="window:1", phase="backward"), 64)
    assert value(found, "L0r") == 32 * 8
    assert value(found, "L7") == 0


def test_bounds_grow_when_the_mask_does() -> None:
    """P and the used rows and keys follow the mask, whatever its kind."""
    masks = ["window:9", "window:40", "or(window:40;grid:8)", "causal", "full"]
    totals = [floors(problem(256, 256, 16, mask=mask), 600).once_elements for mask in masks]
    assert totals == sorted(totals)
    assert totals[0] < totals[-1]


@given(small)
def test_l5_is_its_formula_over_every_x(case: tuple) -> None:
    n_q, n_kv, d, d_v, memory, _ = case
    pairs = n_q * n_kv
    direct = best_over_x(lambda C: min(up(d * d * pairs, C * C), up(pairs, 2 * C)), memory, pairs + 2)
    assert value(floors(problem(n_q, n_kv, d, d_v), memory), "L5") == direct


def test_backward_has_no_log_sum_exp_to_write() -> None:
    asked = problem(32, 32, 8, mask="causal", phase="backward")
    assert floors(asked, 64, lse_output=True).bounds == floors(asked, 64).bounds
