"""The GPU's kernels themselves, in Triton: what lies between a decoding step's matrix products. See triton_kernels.py.

Importing this needs Triton. Sums are in fp32; what is stored is rounded to the tensors' own type, where transformers
rounds too. Offsets into key/value storage are 64 bits wide: it is larger than 2**31 numbers.
"""

# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def add_norm(hidden, delta, weight, normed, size, epsilon, HAS_DELTA: tl.constexpr, BLOCK: tl.constexpr):
    """hidden += delta; normed = hidden / rms(hidden) * weight. One program a row of `size` numbers."""
    row = tl.program_id(0).to(tl.int64) * size
    at = tl.arange(0, BLOCK)
    inside = at < size
    kind = normed.dtype.element_ty
    wide = tl.load(hidden + row + at, mask=inside, other=0.0).to(tl.float32)
    if HAS_DELTA:
        wide += tl.load(delta + row + at, mask=inside, other=0.0).to(tl.float32)
        wide = wide.to(kind).to(tl.float32)
        tl.store(hidden + row + at, wide.to(kind), mask=inside)
    scaled = (wide * tl.rsqrt(tl.sum(wide * wide, 0) / size + epsilon)).to(kind).to(tl.float32)
    tl.store(
        normed + row + at, (scaled * tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)).to(kind), mask=inside
    )


@triton.jit
def gate(gate_up, out, size, BLOCK: tl.constexpr):
    """silu(gate) * up, gate first. A program does BLOCK numbers of one row."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    kind = out.dtype.element_ty
    opened = tl.load(gate_up + row * 2 * size + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * size + size + at, mask=inside, other=0.0).to(tl.float32)
    small = tl.exp(-tl.abs(opened))  # never overflows
    opened = (opened * tl.where(opened < 0, small, 1.0) / (1.0 + small)).to(kind).to(tl.float32)
    tl.store(out + row * size + at, (opened * up).to(kind), mask=inside)


@triton.jit
def turn_and_store(
    projected,
    cos,
    sin,
    query,
    keys,
    values,
    slots,
    positions,
    room,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Queries at their rotary positions to `query`; keys, turned too, and values to their places in the storage.

    One program a token and head of `projected` [N, H + 2 KV, D], with H = HEADS x GROUP and KV = HEADS.
    """
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = tl.arange(0, BLOCK)
    inside = at < WIDTH
    row = projected + (token * (GROUP + 2) * HEADS + head) * WIDTH
    position = tl.load(positions + token)
    own = tl.load(row + at, mask=inside, other=0.0)
    kind = query.dtype.element_ty
    if head >= (GROUP + 1) * HEADS:
        number = head - (GROUP + 1) * HEADS
        place = ((tl.load(slots + token) * HEADS + number) * room + position) * WIDTH
        tl.store(values + place + at, own, mask=inside)
    else:
        half: tl.constexpr = WIDTH // 2
        other = tl.load(row + tl.where(at < half, at + half, at - half), mask=inside, other=0.0).to(tl.float32)
        turned = own.to(tl.float32) * tl.load(cos + position * WIDTH + at, mask=inside, other=0.0).to(tl.float32)
        turned += tl.where(at < half, -other, other) * tl.load(sin + position * WIDTH + at, mask=inside, other=0.0).to(
            tl.float32
        )
        if head < GROUP * HEADS:
            tl.store(query + (token * GROUP * HEADS + head) * WIDTH + at, turned.to(kind), mask=inside)
        else:
            place = ((tl.load(slots + token) * HEADS + head - GROUP * HEADS) * room + position) * WIDTH
            tl.store(keys + place + at, turned.to(kind), mask=inside)


@triton.jit
def look(
    query,
    keys,
    values,
    bias,
    out,
    slots,
    lengths,
    room,
    scale,
    EXTRA: tl.constexpr,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    WIDTH: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Attention of a token's GROUP query heads over their key head's first lengths + EXTRA positions of its slot.

    One program a token and key head; query and out [N, HEADS x GROUP, WIDTH], storage [S, HEADS, room, WIDTH]. `bias`
    [HEADS x GROUP, room] is added by distance from the last position.
    """
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    length = tl.load(lengths + token) + EXTRA
    rows, d = tl.arange(0, ROWS), tl.arange(0, BLOCK_D)
    heads = head * GROUP + rows
    real = (rows < GROUP)[:, None] & (d < WIDTH)[None, :]
    places = (token * HEADS * GROUP + heads)[:, None] * WIDTH + d[None, :]
    q = tl.load(query + places, mask=real, other=0.0)
    stored = (tl.load(slots + token) * HEADS + head) * room * WIDTH
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    sums = tl.zeros([ROWS, BLOCK_D], tl.float32)
    for start in range(0, length, BLOCK):
        at = start + tl.arange(0, BLOCK)
        seen = at < length
        block = stored + at[:, None] * WIDTH + d[None, :]
        there = seen[:, None] & (d < WIDTH)[None, :]
        k = tl.load(keys + block, mask=there, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        if HAS_BIAS:
            back = (length - 1 - at)[None, :]
            scores += tl.load(
                bias + heads[:, None] * room + back, mask=(rows < GROUP)[:, None] & seen[None, :], other=0.0
            ).to(tl.float32)
        scores = tl.where(seen[None, :], scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        shrink = tl.exp(top - higher)
        weights = tl.exp(scores - higher[:, None])
        v = tl.load(values + block, mask=there, other=0.0)
        sums = sums * shrink[:, None] + tl.dot(weights.to(v.dtype), v, input_precision=PRECISION)
        total = total * shrink + tl.sum(weights, 1)
        top = higher
    tl.store(out + places, (sums / total[:, None]).to(out.dtype.element_ty), mask=real)
