// The marks on one radiograph: an SVG above the canvas, whose elements are made once and then placed for each frame.
// Every point and grade can have the focus. One of them at a time is in the order of Tab; n and p go to the others.

import { drawn } from "/review/dom.js";
import { places, spacing, upright } from "/review/geometry.js";
import { PARTS } from "/review/draft.js";

export const MEANINGS = {
  0: "normal",
  1: "erosion, sclerosis or squaring",
  2: "syndesmophyte",
  3: "bridge",
  null: "not graded",
};

export const gradeName = (grade) => (grade === null ? "?" : String(grade));

const line = (name) => drawn("line", { class: name });

function set(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
}

const between = (node, [x1, y1], [x2, y2]) => set(node, { x1, y1, x2, y2 });

const at = (node, [x, y]) => node.setAttribute("transform", `translate(${x.toFixed(2)} ${y.toFixed(2)})`);

export class Marks {
  // `geometry()` gives { turn, rows, columns, width, height } of the picture.
  constructor(label, geometry, editable) {
    this.geometry = geometry;
    this.editable = editable;
    const help = editable
      ? ". Keys n and p go from mark to mark; arrow keys move a point; 0 to 3 or x set a grade" : "";
    this.root = drawn("svg", { class: "marks", role: "group", "aria-label": `Marks on ${label}${help}` });
    this.discs = [];
    this.marks = []; // in the order of n and p: { node, kind, level, part, site }
    this.current = null; // the key of the mark that Tab reaches
  }

  // `caution`: none of the points is to be trusted.
  update(discs, caution = false) {
    const key = discs.map((disc) => `${disc.level}:${disc.corners.map((corner) => corner.site)}`).join();
    if (key !== this.key) this._build(discs);
    this.key = key;
    this.discs = discs;
    this.root.classList.toggle("untrusted", caution);
    for (const [number, disc] of discs.entries()) this._describe(this.parts[number], disc);
  }

  _build(discs) {
    this.marks = [];
    this.parts = discs.map((disc) => {
      const part = {
        was: line("was"), edge: line("edge"), axis: line("axis"),
        name: drawn("text", { class: "level" }), lost: drawn("text", { class: "level", dy: "1.2em" }),
        ghosts: PARTS.map(() => drawn("circle", { class: "ghost", r: 5 })),
        leads: disc.corners.map(() => [line("edge"), line("lead")]),
        points: PARTS.map((name, number) => this._mark("point", { level: disc.level, part: number },
          drawn("circle", { class: "ring", r: 12 }), drawn("circle", { class: `dot ${name}`, r: 4 }))),
        badges: disc.corners.map(({ site }) => this._mark("corner", { level: disc.level, site },
          drawn("circle", { class: "ring", r: 17 }), drawn("use"), drawn("text", { class: "note" }))),
      };
      part.bridge = [line("bridge-edge"), line("bridge")];
      return part;
    });
    const group = (name, nodes) => drawn("g", { class: name }, nodes);
    this.root.replaceChildren(
      group("under", this.parts.flatMap((part) =>
        [part.was, part.edge, part.axis, ...part.leads.flat(), ...part.bridge])),
      group("ghosts", this.parts.flatMap((part) => part.ghosts)),
      group("levels", this.parts.flatMap((part) => [part.name, part.lost])),
      group("corners", this.parts.flatMap((part) => part.badges)),
      group("points", this.parts.flatMap((part) => part.points)),
    );
    this.marks = this.parts.flatMap((part) => [...part.points, ...part.badges].map((node) => node.mark));
    if (!this.marks.some((mark) => mark.key === this.current)) this.current = this.marks[0]?.key ?? null;
    this._reach();
  }

  _mark(kind, more, ...children) {
    const node = drawn("g", { class: `mark ${kind}`, role: this.editable ? "button" : "img" }, children);
    node.mark = { node, kind, key: more.site ?? `${more.level} ${PARTS[more.part]}`, ...more };
    node.addEventListener("focus", () => this.choose(node.mark, false));
    return node;
  }

  _describe(part, disc) {
    const isGuess = disc.placed.includes(false);
    part.name.textContent = disc.level;
    part.lost.textContent = isGuess ? "not found" : "";
    part.axis.classList.toggle("guess", isGuess);
    part.points.forEach((node, number) => {
      const [x, y] = disc.points[number];
      const isPlaced = disc.placed[number];
      const changed = isPlaced && (!disc.isFound || String(disc.points[number]) !== String(disc.before[number]));
      const place = `x ${x.toFixed(1)}, y ${y.toFixed(1)} pixels`;
      const state = !isPlaced ? ", not found, this place is a guess; Enter says that it is right"
        : changed ? `, ${disc.isFound ? "moved" : "placed"}, not saved` : "";
      node.setAttribute("aria-label", `${disc.level}, ${PARTS[number]} point, ${place}${state}`);
      node.classList.toggle("guess", !isPlaced);
      node.classList.toggle("changed", changed);
      part.ghosts[number].classList.toggle("shown", changed && disc.isFound);
    });
    part.was.classList.toggle("shown", disc.isFound && String(disc.points) !== String(disc.before));
    part.badges.forEach((node, number) => {
      const corner = disc.corners[number];
      const [, shape, note] = node.children;
      shape.setAttribute("href", `#badge-${corner.grade ?? "none"}`);
      note.textContent = corner.sign ?? "";
      node.setAttribute("aria-label", spoken(corner));
      node.classList.toggle("changed", Boolean(corner.sign));
    });
    const isBridge = disc.corners.length === 2 && disc.corners.every((corner) => corner.grade === 3);
    part.bridge.forEach((node) => node.classList.toggle("shown", isBridge));
  }

  // `project` takes an upright place to the screen. `scale` is in screen pixels for each pixel of the picture.
  place(project, scale) {
    const { turn, rows, columns, width, height } = this.geometry();
    const straight = (point) => upright(point, turn, rows, columns);
    const now = places(this.discs.map((disc) => disc.points.map(straight)), width, height);
    const unit = spacing(now.map((spot) => [spot.centre, spot.anterior]));
    const radius = Math.min(Math.max(0.2 * unit * scale, 7.5), 17);
    now.forEach((spot, number) => {
      const [part, disc] = [this.parts[number], this.discs[number]];
      const [centre, anterior] = [project(spot.centre), project(spot.anterior)];
      between(part.edge, centre, anterior);
      between(part.axis, centre, anterior);
      const before = disc.before.map((point) => project(straight(point)));
      between(part.was, ...before);
      part.ghosts.forEach((node, which) => at(node, before[which]));
      [centre, anterior].forEach((place, which) => this._put(part.points[which], place));
      for (const node of [part.name, part.lost]) at(node, project(spot.label));
      part.badges.forEach((node, which) => {
        const [foot, place] = [project(spot.badges[which].foot), project(spot.badges[which].place)];
        part.leads[which].forEach((lead) => between(lead, foot, place));
        this._put(node, place);
        set(node.children[1], { x: -1.3 * radius, y: -1.3 * radius, width: 2.6 * radius, height: 2.6 * radius });
        set(node.children[0], { r: 1.6 * radius });
        set(node.children[2], { x: (anterior[0] < centre[0] ? -1 : 1) * 1.75 * radius, y: 5,
          "text-anchor": anterior[0] < centre[0] ? "end" : "start" });
      });
      const ends = part.badges.map((one) => one.mark.place);
      if (ends.length === 2) part.bridge.forEach((node) => between(node, ...ends));
    });
  }

  _put(node, place) {
    node.mark.place = place;
    at(node, place);
  }

  // The nearest mark to a place on the screen, within `reach`; a point before a grade that is as near.
  hit([x, y], reach, kinds) {
    let [best, least] = [null, reach];
    for (const mark of this.marks) {
      if (!kinds.includes(mark.kind) || !mark.place) continue;
      const away = Math.hypot(mark.place[0] - x, mark.place[1] - y) - (mark.kind === "corner" ? 6 : 0);
      if (away < least) [best, least] = [mark, away];
    }
    return best;
  }

  find(level, part) {
    return this.marks.find((mark) => mark.level === level && mark.part === part);
  }

  // Make a mark the one that Tab reaches, and give it the focus.
  choose(mark, focus = true) {
    this.current = mark.key;
    this._reach();
    if (focus) mark.node.focus({ preventScroll: true });
  }

  step(by) {
    const from = this.marks.findIndex((mark) => mark.key === this.current);
    const mark = this.marks[(from + by + this.marks.length) % this.marks.length];
    if (mark) this.choose(mark);
  }

  show(site) {
    for (const mark of this.marks) mark.node.classList.toggle("pointed", mark.site === site && site !== null);
  }

  _reach() {
    for (const mark of this.marks) mark.node.setAttribute("tabindex", mark.key === this.current ? "0" : "-1");
  }
}

// Return the name of a corner's mark; it has the words beside the mark.
function spoken(corner) {
  const graded = corner.grade === null ? "not graded" : `grade ${corner.grade}, ${MEANINGS[corner.grade]}`;
  const sign = corner.sign ? `, ${corner.sign}` : "";
  const changed = corner.grade !== corner.before || corner.own ? ", not saved" : "";
  const prior = corner.prior === undefined || sign.includes("prior") ? "" : `, prior ${gradeName(corner.prior)}`;
  return `${corner.site}: ${graded}${sign}${changed}${prior}`;
}
