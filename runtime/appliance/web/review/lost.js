// The discs of one region that were not found, with a line for each: the reader places the points, or says that the
// disc cannot be read.

import { choiceOf } from "/review/corners.js";
import { button, element } from "/review/dom.js";
import { PARTS } from "/review/draft.js";

export class LostDiscs {
  // `act` has `place(level)` and `refuse(level)`.
  constructor(act) {
    this.act = act;
    this.lines = new Map();
    this.list = element("ul", { "aria-label": "Discs that were not found" });
    this.root = element("div", { class: "lost" }, element("p", {}, "Points that were not found are dashed, at a guess. ",
      "Drag both points of such a disc to their places."), this.list);
  }

  update(discs, isEditable) {
    const levels = discs.map((disc) => disc.level);
    if (String([...this.lines.keys()]) !== String(levels)) this._build(levels);
    this.root.hidden = levels.length === 0;
    for (const disc of discs) this._show(disc, isEditable);
  }

  // The lines stay as long as they are for the same discs, and with them the focus.
  _build(levels) {
    this.lines.clear();
    for (const level of levels) {
      const text = element("span");
      const place = button("Place", () => this.act.place(level), { "aria-label": `Place the points of ${level}` });
      const refuse = button("Cannot be read", () => this.act.refuse(level), { "aria-label": `${level} cannot be read` });
      this.lines.set(level, { line: element("li", {}, text, place, refuse), text, place, refuse });
    }
    this.list.replaceChildren(...[...this.lines.values()].map(({ line }) => line));
  }

  _show({ level, placed, corners }, isEditable) {
    const { text, place, refuse } = this.lines.get(level);
    const isRefused = corners.length > 0 && corners.every((corner) => choiceOf(corner) === null);
    text.replaceChildren(element("strong", {}, level), ` ${wordsOf(placed, isRefused)}`);
    place.disabled = !isEditable;
    refuse.disabled = !isEditable || isRefused;
    refuse.hidden = corners.length === 0; // a region that is rejected has no grades
  }
}

function wordsOf(placed, isRefused) {
  if (!placed.includes(false)) return "both points are placed";
  if (placed.includes(true)) return `place the ${PARTS[placed.indexOf(false)]} point, too`;
  return isRefused ? "not found, cannot be read" : "not found";
}
