// Rows of the timeline: which attempt is drawn in which row, without overlap.
"use strict";

const BAR = 14; // height of a bar, CSS pixels
const GAP = 6; // between rows
const DEEP = 168; // the most that one row grows to; its bars get thinner instead

/**
 * Parts the attempts into rows, and each row into tracks in which nothing overlaps.
 *
 * @param {object} data What the page holds: names, and attempts as columns.
 * @param {"worker"|"node"} by What has a row of its own.
 * @param {(index: number) => boolean} shown Which attempts are drawn.
 * @returns {{rows: object[], height: number}} Rows from top to bottom, and their height together.
 */
function makeRows(data, by, shown) {
  const all = data.attempts;
  const keys = by === "worker" ? all.worker : all.owner;
  const names = by === "worker" ? data.workers : data.nodes;
  const members = new Map();
  for (let index = 0; index < keys.length; index++) {
    if (!shown(index)) continue;
    if (!members.has(keys[index])) members.set(keys[index], []);
    members.get(keys[index]).push(index);
  }
  const order = [...members.keys()];
  if (by === "worker") order.sort((one, other) => one - other);
  let y = 0;
  const rows = order.map((key) => {
    const tracks = packed(members.get(key), (index) => firstDrawn(all, index, by), all.ended);
    const bar = Math.max(0.5, Math.min(BAR, DEEP / tracks.length));
    const height = Math.max(BAR, bar * tracks.length) + GAP;
    const row = { key, label: names[key], y, height, bar, tracks };
    y += height;
    return row;
  });
  return { rows, height: y };
}

/** Time from which an attempt takes up room: its launch, or in a worker's row its beginning. */
function firstDrawn(all, index, by) {
  return by === "worker" && all.started[index] >= 0 ? all.started[index] : all.queued[index];
}

/** Puts each index into the first track whose last one has ended. */
function packed(indexes, begins, ended) {
  const starts = new Map(indexes.map((index) => [index, begins(index)]));
  const sorted = [...indexes].sort((one, other) => starts.get(one) - starts.get(other));
  const tracks = [];
  const free = new Heap(); // tracks by the time at which they are free again
  for (const index of sorted) {
    const earliest = free.least();
    let track;
    if (earliest !== undefined && earliest.time <= starts.get(index)) track = free.pop().track;
    else track = tracks.push([]) - 1;
    tracks[track].push(index);
    free.push({ time: ended[index], track });
  }
  return tracks;
}

/** A heap of {time, track}, the least time first; of equal times the lower track. */
class Heap {
  constructor() {
    this.items = [];
  }

  least() {
    return this.items[0];
  }

  push(item) {
    const items = this.items;
    let at = items.push(item) - 1;
    while (at > 0) {
      const up = (at - 1) >> 1;
      if (!Heap.before(item, items[up])) break;
      items[at] = items[up];
      at = up;
    }
    items[at] = item;
  }

  pop() {
    const items = this.items;
    const least = items[0];
    const last = items.pop();
    let at = 0;
    while (items.length) {
      let down = 2 * at + 1;
      if (down >= items.length) break;
      if (down + 1 < items.length && Heap.before(items[down + 1], items[down])) down++;
      if (!Heap.before(items[down], last)) break;
      items[at] = items[down];
      at = down;
    }
    if (items.length) items[at] = last;
    return least;
  }

  static before(one, other) {
    return one.time < other.time || (one.time === other.time && one.track < other.track);
  }
}

/**
 * Counts how many are under way at once.
 *
 * @returns {{times: number[], counts: number[], most: number}} The count from each time on.
 */
function countOver(spans) {
  const changes = [];
  for (const [from, to] of spans) {
    if (to > from) changes.push([from, 1], [to, -1]);
  }
  changes.sort((one, other) => one[0] - other[0] || one[1] - other[1]);
  const times = [];
  const counts = [];
  let count = 0;
  let most = 0;
  for (const [time, change] of changes) {
    count += change;
    if (times[times.length - 1] === time) counts[counts.length - 1] = count;
    else {
      times.push(time);
      counts.push(count);
    }
    most = Math.max(most, count);
  }
  return { times, counts, most };
}

/** Index of the last of the rising numbers that is not above the value; -1 if all are. */
function lastNotAbove(numbers, value) {
  let low = 0;
  let high = numbers.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (numbers[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
