"""What `iosim explain` says: each number's meaning, formula, conditions and source."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topic:
    """One thing to explain."""

    title: str
    """in a few words"""
    statement: str
    """what it says"""
    formula: str
    """symbols as in docs/explanation"""
    conditions: tuple[str, ...]
    """when it holds"""
    source: str
    """theorem, paper or page"""


SYMBOLS = (
    "P unmasked pairs in rows with two keys or more, over batch and heads; d, d_v head sizes, e = d + d_v; "
    "M words of fast memory, X any positive integer, C = M + X"
)


def _page(name: str) -> str:
    return f"docs/explanation/floors/{name}.md"


TOPICS: dict[str, Topic] = {
    "L0": Topic(
        "compulsory traffic",
        "Inputs that the result depends on are read at least once, outputs are written at least once. It is the only "
        "floor that holds for every correct kernel, whatever its algorithm.",
        "reads >= d (rows) + d (keys) + d_v (values), rows and keys of rows with two keys or more; writes >= d_v (rows)",
        ("inputs start and outputs end on the slower side, worst-case data, no compression",
         "a row with a single key has O = V: it needs neither its query nor that key",
         "with a warm cache of S bytes each side shrinks by S"),
        _page("L0"),
    ),
    "L1": Topic(
        "forming the scores, recomputation allowed",
        "Cut a run into segments of X loads. A segment can finish few pairs, since a pair needs its query, its key and "
        "its value on chip, or a value of its own. So many segments, hence many loads.",
        "h = min(ceil(4 d e P / C^2), ceil(P / C)); reads >= X (h - 1), best X",
        ("each unmasked score is its own sum of d products, and each P_ij meets V_j",
         "scores may be recomputed; Q, K, V are given; nothing is skipped because of the data"),
        _page("L1"),
    ),
    "L2": Topic(
        "forming the scores, each multiply-add once",
        "As L1, counting accumulators too: without recomputation a pair that is not finished in one segment leaves a "
        "value of its own behind. Its leading constant is that of FlashAttention-2's loop order.",
        "h = ceil(4 e^2 P / (C^2 + 4 e^2 C)); reads + writes >= X (h - 1), best X",
        ("as L1, and each multiply-add of QK^T and PV is executed once",
         "a kernel that recomputes scores can be below it: that is no violation"),
        _page("L2"),
    ),
    "L3": Topic(
        "small memories, each multiply-add once",
        "Below about 4 d^2 words a Loomis-Whitney argument on the multiply-adds of a segment beats L2.",
        "reads + writes >= 2 P e / sqrt(M) - 2 M - P; n memories: sqrt(27) P e X / (M + X)^1.5 - n X - P, best X",
        ("as L2; with V a slice of K the root is divided by sqrt(2)",),
        _page("L3"),
    ),
    "L4": Topic(
        "small memories, recomputation allowed",
        "The products of QK^T alone, by a reduction to matrix multiplication with a constant that survives "
        "recomputation.",
        "reads + writes >= isqrt(2 P^2 d^2 // M) - 4 M - P",
        ("each unmasked score is its own sum of d products; scores may be recomputed; one memory",),
        f"{_page('L4')}; Saha and Ye 2024, theorem 3.7",
    ),
    "L5": Topic(
        "any algebraic way of producing QK^T",
        "A communication argument: few words determine few entries of QK^T, whatever the algorithm.",
        "h = min(ceil(d^2 P / C^2), ceil(P / (2 C))); reads >= X (h - 1), best X",
        ("oblivious schedule; words are elements of a large enough field, so it says nothing of packed floats",),
        f"{_page('L5')}; Saha and Ye 2024, lemma 4.6, constant sharpened",
    ),
    "L6": Topic(
        "backward pass, recomputation allowed",
        "dS_ij joins S_ij (Q_i, K_j) and dP_ij (dO_i, V_j), so a pair needs both sides of both.",
        "h = min(ceil(4 e^2 P / C^2), ceil(P / C)); reads >= X (h - 1), best X",
        ("S_ij and dP_ij are each formed as their own sum and joined per pair",),
        _page("L6"),
    ),
    "L7": Topic(
        "backward pass, each multiply-add once",
        "As L2 with the five products of the backward pass: rows carry Q, dO, dQ and columns K, V, dK, dV.",
        "h = ceil(D P / (C^2 + D C)), D = 4 (2 d + d_v)(2 d + 2 d_v); reads + writes >= X (h - 1), best X",
        ("as L6, and each multiply-add of the five products is executed once",),
        _page("L7"),
    ),
    "gap": Topic(
        "how far a kernel is from a floor",
        "Bytes that a kernel moves across a boundary, both ways, over the floor of a class of algorithms at the same "
        "boundary with the same memory. `any` compares with every correct kernel, `scores` with those that form each "
        "score as a sum, `once` with those that also never recompute. 1x means provably optimal in that class. `any` of a kernel "
        "of another function (linear attention, a scan) compares with every kernel of that function.",
        "(read + written bytes) / floor",
        ("compare gaps at one boundary only: a floor for one core's memory says nothing of main memory",),
        "docs/explanation/floors.md",
    ),
    "certificate": Topic(
        "how near a kernel is, as a document",
        "iosim bounds --certify KERNEL writes a kernel's count, the floors of each class and their ratios rounded up, "
        "in words that are true and with every input; iosim bounds --check FILE derives all of it again.",
        "(read + written bytes) / floor, rounded up",
        ("a count that rests on a cache model says so",
         "a class that says no more than a wider one is left out of the words",
         "a kernel that recomputes can be below the floor of those that do not"),
        "docs/explanation/certificates.md",
    ),
    "curve": Topic(
        "floors against memory",
        "iosim bounds --curve evaluates the floors at 200 sizes of one memory beside the orders known to run in it: "
        "FlashAttention's, and the small-cache algorithm of Saha and Ye, which cross near 0.6 d^2 words.",
        "flash 4 N^2 d^2 / M, small cache 4 N^2 d / sqrt(M) + N^2, to leading order with d = d_v",
        ("one memory, every value one word",),
        "docs/explanation/curve.md",
    ),
    "recompute": Topic(
        "why a kernel may be under L2",
        "L2, L3 and L7 speak of kernels that execute each multiply-add once. recompute-dv forms the scores again for "
        "each chunk of value columns; where d_v is much larger than d it moves less than they allow. L1 still holds.",
        "N_q d + T_r N_kv (n d + d_v) + N_q d_v words, n chunks",
        ("d_v > sqrt(2) d, and a memory that binds",),
        "docs/explanation/floors/recomputation.md",
    ),
    "time_floor": Topic(
        "the time no kernel can beat",
        "Useful FLOP at the highest dense peak that the device can reach, or compulsory bytes at datasheet bandwidth, "
        "whichever takes longer. Nothing else enters, so no kernel of the call can be faster.",
        "max(2 (d + d_v) pairs / peak, (L0 reads + writes) / bandwidth)",
        ("the peak is the larger of the stated one and units x operations x highest clock, dense",
         "cold cache, unless --l2 warm: then compulsory bytes shrink by the last cache"),
        "docs/explanation/time.md",
    ),
    "ceilings": Topic(
        "what each resource would take alone",
        "Seconds that each resource needs for the kernel's own work: executed FLOP, exponentials, shared-memory "
        "traffic, requests at L2, bytes at main memory. The longest binds. They are no floors: another "
        "kernel may do less work.",
        "work / rate, per resource",
        ("masked entries of visited tiles count as executed", "the L2's rate is the best measured one where known"),
        "docs/explanation/time.md",
    ),
    "link": Topic(
        "what must cross a link, whatever is sent",
        "Attention can copy: with queries that single one key out, a row's output is that key's value. Rows of a device "
        "that single out m distinct keys elsewhere have as many outcomes as m d_v words, so its messages tell that much, "
        "be they keys, partial outputs or compressed words. Where the far side only stores, keys cross as under L0.",
        "received >= H_kv d_v min(G n, keys seen elsewhere), n tokens per device; sent >= H_kv d_v min(n, G rows elsewhere)",
        ("worst-case data, exact softmax rounded to the output's type",
         "messages tell by their bits alone, and nothing comes another way",
         "each device starts with Q, K, V and ends with O of its own tokens; other ways say what they start with"),
        "docs/explanation/links.md",
    ),
    "exchange": Topic(
        "how devices share a call, and what one of P sends",
        "ring, zigzag: K and V of all shards but one. ulysses: heads of others out, rows of others back. state-gather: "
        "one state per head and its decay, for linear attention. tiling-allreduce: projected rows added up, block by block. "
        "attention-servers: Q and new keys in, O out, the cache stays. Backward, gradients of keys travel with them.",
        "(N - n) H_kv (d + d_v); (N - n) (H (d + d_v) + H_kv (d + d_v)) / P; (P - 1) H_kv d d_v; 2 (P - 1) / P N W; "
        "n (H (d + d_v) + H_kv (d + d_v)) / P both ways",
        ("words per sequence, N tokens in shards of n; W columns of the projected output",
         "a link carries both directions at once; overlap of rounds with compute is an expectation, no floor"),
        "docs/explanation/links.md",
    ),
    "offload": Topic(
        "what lies on the far side of a link, and what crosses per call",
        "kv: cached K and V that do not stay come for each call, new ones go out. attention: the far side computes with "
        "the keys it holds; only Q, new K and V, and O cross. activations: what the backward pass needs goes out in the "
        "forward pass and comes back.",
        "(T - R) H_kv (d + d_v) in; n (H d + H_kv (d + d_v)) out and n H d_v back; (N - R) (H (d + d_v + 1) + H_kv (d + d_v))",
        ("T cached tokens, n new ones, R = floor(F T) or floor(F N) resident", "a link carries both directions at once"),
        "docs/explanation/links.md",
    ),
    "boundary": Topic(
        "where bytes are counted",
        "core: what is delivered into the cores' own memories, multicast counted once per receiver. l2: requests that "
        "the last shared cache serves. hbm: what crosses between main memory and the last cache. host, link: what one device "
        "receives and sends. The memory above a boundary is everything on the near side.",
        "",
        (),
        "docs/explanation/floors.md",
    ),
}  # fmt: skip
