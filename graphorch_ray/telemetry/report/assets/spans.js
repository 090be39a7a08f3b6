// The spans that the code of one attempt made, beneath its details.
"use strict";

class Spans {
  /**
   * @param {HTMLElement} place What to fill.
   * @param {object} data What the page holds.
   */
  constructor(place, data) {
    this.place = place;
    this.data = data;
    this.first = new Map(); // by attempt: the place of its first span
    this.counts = new Map();
    data.spans.attempt.forEach((attempt, at) => {
      if (!this.first.has(attempt)) this.first.set(attempt, at);
      this.counts.set(attempt, (this.counts.get(attempt) || 0) + 1);
    });
  }

  /** How many an attempt has, those not shown included. */
  count(attempt) {
    return (this.counts.get(attempt) || 0) + (this.data.spansHidden[attempt] || 0);
  }

  /** Shows those of an attempt; there may be none. */
  show(attempt) {
    this.place.replaceChildren();
    if (!this.first.has(attempt)) return;
    const { attempts, spans, spansHidden } = this.data;
    const begun = attempts.started[attempt] >= 0 ? attempts.started[attempt] : attempts.queued[attempt];
    const rows = [];
    for (let at = this.first.get(attempt); spans.attempt[at] === attempt; at++) {
      rows.push(this.row(at, begun, attempts.ended[attempt]));
    }
    const list = document.createElement("ul");
    list.className = "spans";
    list.setAttribute("aria-label", "Spans that its code made");
    list.append(...rows);
    this.place.append(list);
    if (spansHidden[attempt]) {
      const more = document.createElement("p");
      more.className = "hint";
      more.textContent = `and ${spansHidden[attempt]} more`;
      this.place.append(more);
    }
  }

  row(at, begun, ended) {
    const { spans, spanNames, errors } = this.data;
    const start = spans.start[at];
    const length = spans.ended[at] - start;
    const whole = Math.max(1, ended - begun);
    const name = document.createElement("span");
    name.className = "name";
    name.style.paddingInlineStart = `${Math.min(spans.depth[at], 12)}em`;
    name.textContent = spanNames[spans.name[at]];
    const track = document.createElement("span");
    track.className = "track";
    track.setAttribute("aria-hidden", "true");
    const mark = document.createElement("span");
    const left = Math.min(99.5, Math.max(0, ((start - begun) / whole) * 100));
    mark.style.left = `${left}%`;
    mark.style.width = `${Math.min(100 - left, Math.max(0.5, (length / whole) * 100))}%`;
    track.append(mark);
    const time = document.createElement("span");
    time.className = "time";
    time.textContent = `${durationText(length)}, ${durationText(Math.max(0, start - begun))} in`;
    const row = document.createElement("li");
    row.append(name, track, time);
    if (spans.failed[at]) {
      row.className = "failed";
      const error = document.createElement("span");
      error.className = "error-text";
      error.textContent = errors[spans.error[at]] || "failed";
      row.append(error);
    }
    return row;
  }
}
