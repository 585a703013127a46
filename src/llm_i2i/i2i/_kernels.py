"""Compiled loops over the interaction matrix: Swing, weighted overlaps, top-k, ranking.

All of them give the same bits for any number of threads: a row is computed by one worker, in a fixed
order, and written to its own place. Row n of the work list goes to worker n modulo the number of workers;
each worker allocates its scratch once.

Integers are int64, or uint32 where they only index (`pointers`), never uint64: numba turns int64 mixed
with uint64 into float64 without a word. One file, because numba would not see a change in another (`jit`).
"""

# ruff: noqa: C901, PLR0913, PLR0915, PLR0917  # inner loops: compiled code takes plain arrays, not options, and cannot be cut finer
# mypy: disable-error-code="arg-type,return-value"
# (numba compiles int and np.int64, float and np.float32 alike)

import numpy as np
from numba import prange

from llm_i2i.arrays import Array
from llm_i2i.i2i._jit import jit

LOW = 0x7FFFFFFF  # item indices fit 31 bits
TABLE_USERS = 256  # up to here pairs of an item's users are counted in a table: 128 KiB of uint16
SHORT = 128  # up to here Shell's sort beats numba's sort, which costs half a microsecond per call


@jit()
def key_of(score: float, item: int, as_float: Array, as_int: Array) -> int:
    """Return an int64 that sorts as (float32 score ascending, item descending); score must be > 0.

    The bits of a positive float32 grow with its value. `as_float` and `as_int` are one cell seen both ways.
    """
    as_float[0] = score
    return (np.int64(as_int[0]) << np.int64(32)) | np.int64(LOW - item)


@jit()
def push(heap: Array, size: int, key: int) -> int:
    """Offer `key` to the min-heap of the largest keys seen; return its new size."""
    capacity = heap.shape[0]
    if size < capacity:
        place = size
        while place > 0 and heap[(place - 1) >> 1] > key:
            heap[place] = heap[(place - 1) >> 1]
            place = (place - 1) >> 1
        heap[place] = key
        return size + 1
    if capacity == 0 or key <= heap[0]:
        return size
    place = 0
    while True:
        child = 2 * place + 1
        if child >= capacity:
            break
        if child + 1 < capacity and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[place] = heap[child]
        place = child
    heap[place] = key
    return size


@jit()
def offer(keys: Array, size: int, count: int, key: int) -> int:
    """Take one of `count` keys in all: as a heap if there are more than fit, else as a plain list."""
    if count > keys.shape[0]:
        return push(keys, size, key)
    keys[size] = key
    return size + 1


@jit()
def pop_all(heap: Array, size: int, out_items: Array) -> None:
    """Write the items of the heap, best first, into `out_items` and leave the heap sorted."""
    if size > SHORT:
        heap[:size].sort()
    else:
        for gap in (23, 10, 4, 1):  # Shell's sort, Ciura's gaps
            for place in range(gap, size):
                key, hole = heap[place], place
                while hole >= gap and heap[hole - gap] > key:
                    heap[hole] = heap[hole - gap]
                    hole -= gap
                heap[hole] = key
    for place in range(size):
        out_items[place] = LOW - (heap[size - 1 - place] & np.int64(LOW))


@jit()
def _local_ids(item: int, minimum: int, seen: int, counts: Array, touched: Array, local: Array, starts: Array) -> int:
    """Number the items that share at least `minimum` users with `item`; fill their list offsets; return how many."""
    counts[item] = 0
    kept, spare = 0, local.shape[0]
    starts[0] = 0
    for place in range(seen):
        other = touched[place]
        local[other] = spare
        if counts[other] >= minimum:
            local[other] = kept
            touched[kept], touched[place] = other, touched[kept]  # local id -> item
            starts[kept + 1] = starts[kept] + counts[other]
            kept += 1
    return kept


@jit()
def _pair_phase(
    n_active: int, stride: int, starts: Array, cursor: Array, lists: Array, members: Array, bounds: Array,
    weights: Array, inverse: Array, cells: Array, acc: Array,
) -> None:  # fmt: skip
    """Add w_a w_v / (smoothing + |I_a ∩ I_v|) for every pair of positions a < v to each item both took."""
    for a in range(n_active):
        if bounds[a + 1] - bounds[a] == 1:  # one item: every pair shares it and the row's item, no more
            k = members[bounds[a]]
            cursor[k] += 1
            total = 0.0
            for p in range(cursor[k], starts[k + 1]):
                total += weights[lists[p]]
            acc[k] += weights[a] * (total * inverse[2])
            continue
        base = (a + 1) * stride  # a cell below base is stale: no reset between users
        for m in range(bounds[a], bounds[a + 1]):
            k = members[m]
            cursor[k] += 1
            for p in range(cursor[k], starts[k + 1]):
                v = lists[p]
                cells[v] = max(cells[v], base) + 1
        weight = weights[a]
        for m in range(bounds[a], bounds[a + 1]):
            k = members[m]
            total = 0.0
            for p in range(cursor[k], starts[k + 1]):
                v = lists[p]
                total += weights[v] * inverse[cells[v] - base + 1]
            acc[k] += weight * total


@jit()
def _count_shared(users: Array, by_user: tuple[Array, Array], counts: Array, touched: Array) -> int:
    """Count for each item how many of `users` took it; list the items met; return how many."""
    start, taken = by_user
    seen = 0
    for u in users:
        for p in range(start[u], start[u + 1]):
            item = taken[p]
            touched[seen] = item  # without a branch: whether an item is new cannot be predicted
            seen += counts[item] == 0
            counts[item] += 1
    return seen


@jit()
def _fill_lists(
    users: Array, by_user: tuple[Array, Array], user_weight: Array, self_term: Array, minimum: int, counts: Array,
    local: Array, cursor: Array, lists: Array, members: Array, bounds: Array, weights: Array, cells: Array, acc: Array,
) -> int:  # fmt: skip
    """List the positions of each local item's users and each position's local items; return the positions used."""
    start, taken = by_user
    active, filled = 0, 0
    bounds[0] = 0
    for u in users:
        for p in range(start[u], start[u + 1]):
            members[filled] = taken[p]
            filled += counts[taken[p]] >= minimum
        for m in range(bounds[active], filled):
            k = local[members[m]]
            if minimum == 1:
                acc[k] += self_term[u]
            lists[cursor[k]] = active
            cursor[k] += 1
            members[m] = k
        if filled > bounds[active]:  # else no pair with this user counts: drop the user
            weights[active] = user_weight[u]
            cells[active] = 0
            active += 1
            bounds[active] = filled
    return active


@jit()
def _fill_short(
    users: Array, by_user: tuple[Array, Array], user_weight: Array, self_term: Array, minimum: int,
    local: Array, cursor: Array, lists: Array, weights: Array, acc: Array,
) -> int:  # fmt: skip
    """List the positions of each local item's users; return the positions used.

    Without a branch: items that do not count are numbered `spare`, a list emptied before each user.
    """
    start, taken = by_user
    spare = local.shape[0]
    active, begin = 0, cursor[spare]
    for u in users:
        cursor[spare] = begin
        for p in range(start[u], start[u + 1]):
            k = local[taken[p]]
            lists[cursor[k]] = active
            cursor[k] += 1
        if minimum == 1:
            for p in range(start[u], start[u + 1]):
                acc[local[taken[p]]] += self_term[u]
        weights[active] = user_weight[u]
        active += cursor[spare] - begin < start[u + 1] - start[u]  # else no pair with this user counts
    return active


@jit()
def _pair_table(
    n_active: int, kept: int, starts: Array, lists: Array, weights: Array, inverse: Array, table: Array, acc: Array
) -> None:  # fmt: skip
    """Do what `_pair_phase` does with a count for every pair of positions: faster while the table fits the cache."""
    table[: n_active * n_active] = 0
    one = np.uint16(1)
    for k in range(kept):
        first = starts[k]
        if starts[k + 1] - first == 2:
            table[np.int64(lists[first]) * n_active + np.int64(lists[first + 1])] += one
            continue
        for x in range(first, starts[k + 1] - 1):
            row = np.int64(lists[x]) * n_active
            for y in range(x + 1, starts[k + 1]):
                table[row + np.int64(lists[y])] += one
    for k in range(kept):
        first = starts[k]
        if starts[k + 1] - first == 2:
            a, v = np.int64(lists[first]), np.int64(lists[first + 1])
            acc[k] += weights[a] * (weights[v] * inverse[np.int64(table[a * n_active + v]) + 1])
            continue
        for x in range(first, starts[k + 1] - 1):
            a = np.int64(lists[x])
            row, total = a * n_active, 0.0
            for y in range(x + 1, starts[k + 1]):
                v = np.int64(lists[y])
                total += weights[v] * inverse[np.int64(table[row + v]) + 1]
            acc[k] += weights[a] * total


@jit()
def _swing_worker(
    worker: int, n_workers: int, order: Array, by_user: tuple[Array, Array], by_item: tuple[Array, Array],
    user_weight: Array, inverse: Array, self_term: Array, item_scale: Array, minimum: int,
    out: tuple[Array, Array, Array],
) -> None:  # fmt: skip
    """Fill the rows of one worker's items. Scratch grows to the largest local problem met."""
    item_start, item_user = by_item
    out_item, out_score, out_size = out
    n_items, longest = item_scale.shape[0], inverse.shape[0]
    counts, touched = np.zeros(n_items, np.int32), np.empty(n_items + 1, np.uint32)
    local, starts = np.empty(n_items, np.uint32), np.empty(n_items + 1, np.int64)
    cursor, acc = np.empty(n_items + 1, np.int64), np.empty(n_items + 1, np.float64)
    table = np.empty(TABLE_USERS * TABLE_USERS, np.uint16)
    heap, as_float = np.empty(out_item.shape[1], np.int64), np.empty(1, np.float32)
    as_int = as_float.view(np.int32)
    lists, members = np.empty(0, np.uint32), np.empty(0, np.uint32)
    bounds, weights, cells = np.empty(1, np.int64), np.empty(0, np.float64), np.empty(0, np.int64)
    for n in range(worker, order.shape[0], n_workers):
        item = order[n]
        users = item_user[item_start[item] : item_start[item + 1]]
        seen = _count_shared(users, by_user, counts, touched)
        kept = _local_ids(item, minimum, seen, counts, touched, local, starts)
        if kept == 0:
            counts[touched[:seen]] = 0
            continue
        size = starts[kept] + longest
        if lists.shape[0] <= size:
            lists, members = (np.empty(size + size // 2 + 1, np.uint32), np.empty(size + size // 2 + 1, np.uint32))
        if cells.shape[0] < users.shape[0]:
            size = users.shape[0] + users.shape[0] // 2
            bounds, weights = np.empty(size + 1, np.int64), np.empty(size, np.float64)
            cells = np.empty(size, np.int64)
        cursor[:kept] = starts[:kept]
        acc[:kept] = 0.0
        if users.shape[0] <= TABLE_USERS and longest < 1 << 16:
            cursor[n_items], acc[n_items] = starts[kept], 0.0
            active = _fill_short(users, by_user, user_weight, self_term, minimum, local, cursor, lists, weights, acc)
            _pair_table(active, kept, starts, lists, weights, inverse, table, acc)
        else:
            active = _fill_lists(
                users, by_user, user_weight, self_term, minimum, counts,
                local, cursor, lists, members, bounds, weights, cells, acc,
            )  # fmt: skip
            cursor[:kept] = starts[:kept]
            _pair_phase(active, inverse.shape[0], starts, cursor, lists, members, bounds, weights, inverse, cells, acc)
        size = 0
        for k in range(kept):
            acc[k] *= item_scale[item] * item_scale[touched[k]]
            if np.float32(acc[k]) > 0:
                size = offer(heap, size, kept, key_of(acc[k], touched[k], as_float, as_int))
        pop_all(heap, size, out_item[item])
        for place in range(size):
            out_score[item, place] = acc[local[out_item[item, place]]]
        out_size[item] = size
        counts[touched[:seen]] = 0


@jit(parallel=True)
def swing_rows(
    n_workers: int, order: Array, by_user: tuple[Array, Array], by_item: tuple[Array, Array], user_weight: Array,
    inverse: Array, self_term: Array, item_scale: Array, minimum: int, out: tuple[Array, Array, Array],
) -> None:  # fmt: skip
    """Fill the Swing rows of the items in `order`; see `llm_i2i.i2i.swing` for the formula.

    Args:
        n_workers: Number of workers, each with its own scratch.
        order: int64 items, heaviest first.
        by_user: (pointers int64, items uint32) of each user.
        by_item: (pointers int64, users uint32) of each item, users ascending.
        user_weight: float64 (n_users,) w_u.
        inverse: float64, entry c = 1 / (smoothing + c), up to the longest user list + 1.
        self_term: float64 (n_users,) what one shared user adds alone.
        item_scale: float64 (n_items,) n_i ^ -popularity_exponent.
        minimum: Shared users from which a pair of items counts: 2, or 1 with self terms.
        out: (items int32, scores float64, sizes int64): (n_items, top_k) twice and (n_items,).
    """
    for worker in prange(n_workers):
        _swing_worker(
            np.int64(worker), n_workers, order, by_user, by_item,
            user_weight, inverse, self_term, item_scale, minimum, out,
        )  # fmt: skip


@jit()
def _overlap_worker(
    worker: int, n_workers: int, order: Array, by_user: tuple[Array, Array], by_item: tuple[Array, Array],
    user_gain: Array, item_scale: Array, out: tuple[Array, Array, Array],
) -> None:  # fmt: skip
    """Fill the rows of one worker's items: a row of A^T A at a time, cut to its top-k at once."""
    user_start, user_item = by_user
    item_start, item_user = by_item
    out_item, out_score, out_size = out
    n_items = item_start.shape[0] - 1
    acc, touched = np.zeros(n_items, np.float64), np.empty(n_items + 1, np.uint32)
    heap, as_float = np.empty(out_item.shape[1], np.int64), np.empty(1, np.float32)
    as_int = as_float.view(np.int32)
    for n in range(worker, order.shape[0], n_workers):
        item = order[n]
        seen = 0
        for q in range(item_start[item], item_start[item + 1]):
            u = item_user[q]
            gain = user_gain[u]
            if gain <= 0.0:
                continue
            for p in range(user_start[u], user_start[u + 1]):
                other = user_item[p]
                touched[seen] = other
                seen += acc[other] == 0.0
                acc[other] += gain
        acc[item] = 0.0
        size = 0
        for place in range(seen):
            other = touched[place]
            acc[other] = acc[other] * (item_scale[item] * item_scale[other])
            if np.float32(acc[other]) > 0:
                size = offer(heap, size, seen, key_of(acc[other], other, as_float, as_int))
        pop_all(heap, size, out_item[item])
        for place in range(size):
            out_score[item, place] = acc[out_item[item, place]]
        out_size[item] = size
        for place in range(seen):
            acc[touched[place]] = 0.0


@jit(parallel=True)
def overlap_rows(
    n_workers: int, order: Array, by_user: tuple[Array, Array], by_item: tuple[Array, Array], user_gain: Array,
    item_scale: Array, out: tuple[Array, Array, Array],
) -> None:  # fmt: skip
    """Fill rows with score(i, j) = item_scale_i item_scale_j * sum of user_gain over users of both.

    Args: as of `swing_rows`; `user_gain` float64 (n_users,) >= 0.
    """
    for worker in prange(n_workers):
        _overlap_worker(np.int64(worker), n_workers, order, by_user, by_item, user_gain, item_scale, out)


@jit()
def join_rows(rows: tuple[Array, Array, Array], indptr: Array, indices: Array, data: Array) -> None:
    """Lay the filled parts of rows end to end; row n begins at indptr[n]."""
    items, scores, sizes = rows
    for row in range(sizes.shape[0]):
        begin = np.int64(indptr[row])
        for place in range(sizes[row]):
            indices[begin + place] = items[row, place]
            data[begin + place] = scores[row, place]


@jit(parallel=True)
def dense_rows(first: int, block: Array, out: tuple[Array, Array, Array]) -> None:
    """Cut a dense float32 block (rows, n_items) of scores to its positive top-k; row r is item first + r."""
    out_item, out_score, out_size = out
    for r in prange(block.shape[0]):
        item = np.int64(first) + np.int64(r)
        heap, as_float = np.empty(out_item.shape[1], np.int64), np.empty(1, np.float32)
        as_int = as_float.view(np.int32)
        size = 0
        least = np.float32(0.0)  # what a score must reach; a tie with it has a larger index, so it loses
        for other in range(block.shape[1]):
            if block[r, other] > least and other != item:
                size = push(heap, size, key_of(block[r, other], other, as_float, as_int))
                if size == heap.shape[0]:
                    as_int[0] = np.int32(heap[0] >> np.int64(32))
                    least = as_float[0]
        pop_all(heap, size, out_item[item])
        for place in range(size):
            out_score[item, place] = block[r, out_item[item, place]]
        out_size[item] = size


@jit()
def _rank_worker(
    worker: int, n_workers: int, similar: tuple[Array, Array, Array], history: tuple[Array, Array],
    targets: Array, last_m: int, decay: float, ranks: Array, lists: Array,
) -> None:  # fmt: skip
    """Rank one worker's users; see `rank_rows`."""
    start, neighbour, score = similar
    bounds, taken = history
    n_items = start.shape[0] - 1
    acc, touched = np.zeros(n_items, np.float64), np.empty(n_items, np.int32)
    heap, as_float = np.empty(lists.shape[1], np.int64), np.empty(1, np.float32)
    as_int = as_float.view(np.int32)
    for user in range(worker, targets.shape[0], n_workers):
        first, last = bounds[user], bounds[user + 1]
        if last_m > 0:
            first = max(first, last - last_m)
        seen = 0
        weight = 1.0
        for q in range(last - 1, first - 1, -1):  # most recent first
            for p in range(start[taken[q]], start[taken[q] + 1]):
                other = neighbour[p]
                gain = weight * score[p]
                if gain <= 0.0:  # decay^age may underflow; a cell must never be listed twice
                    continue
                if acc[other] == 0.0:
                    touched[seen] = other
                    seen += 1
                acc[other] += gain
            weight *= decay
        for q in range(bounds[user], last):
            acc[taken[q]] = 0.0
        size = 0
        best = np.float32(acc[targets[user]]) if targets[user] >= 0 else np.float32(0.0)
        ahead = 0
        for place in range(seen):
            other = touched[place]
            value = np.float32(acc[other])
            acc[other] = 0.0
            if value > 0:
                size = offer(heap, size, seen, key_of(value, other, as_float, as_int))
                if value > best or (value == best and other < targets[user]):
                    ahead += 1
        ranks[user] = ahead + 1 if best > 0 else 0
        pop_all(heap, size, lists[user])
        lists[user, size:] = -1


@jit(parallel=True)
def rank_rows(
    n_workers: int, similar: tuple[Array, Array, Array], history: tuple[Array, Array], targets: Array,
    last_m: int, decay: float, ranks: Array, lists: Array,
) -> None:  # fmt: skip
    """Rank each user's target among all items outside the history and list the best ones.

    Args:
        n_workers: Number of workers.
        similar: CSR of the index: pointers int64, neighbours uint32, scores float32 > 0.
        history: (bounds int64 (n_users + 1,), items uint32), oldest first.
        targets: int64 (n_users,) item, or -1 for none.
        last_m: Query length, 0 = all.
        decay: Weight of a query item = decay^age, age 0 = the most recent.
        ranks: out int32 (n_users,), 1-based; 0 = the target has no score.
        lists: out int32 (n_users, k), best first, -1 behind the end.
    """
    for worker in prange(n_workers):
        _rank_worker(np.int64(worker), n_workers, similar, history, targets, last_m, decay, ranks, lists)
