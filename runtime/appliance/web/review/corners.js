// The table of one region's corners, in which every grade can be set, the list of grades that opens at a mark, and the
// meaning of the grades (Creemers et al. 2005, doi 10.1136/ard.2004.020503).

import { badge, element } from "/review/dom.js";
import { gradeOf } from "/review/gestures.js";
import { MEANINGS, gradeName } from "/review/marks.js";

const CHOICES = [0, 1, 2, 3, null];
const CANNOT = "cannot be read";

const choiceName = (grade) => (grade === null ? "x" : String(grade));

// Return the choice that a corner has: a grade, null if a reader cannot read it, undefined if it was not graded.
export function choiceOf({ grade, own, grade_from: by }) {
  return grade !== null || own || by === "reader" ? grade : undefined;
}

const meaning = (grade) => (grade === null ? CANNOT : MEANINGS[grade]);

export class CornerTable {
  // `act` has `setGrade(site, grade)` and `point(site or null)`.
  constructor(region, act) {
    this.region = region;
    this.act = act;
    this.body = element("table", { class: "corners" });
    this.root = element("div", { class: "corner-table" }, this.body);
    this.rows = new Map();
  }

  update(discs, isEditable) {
    const key = discs.map((disc) => disc.level).join();
    if (key !== this.key) this._build(discs);
    this.key = key;
    for (const corner of discs.flatMap((disc) => disc.corners)) this._show(corner, isEditable);
  }

  _build(discs) {
    this.rows.clear();
    const head = ["Disc", "Corner", "", "Grade", "Note"].map((name) =>
      element("th", { scope: "col", class: name.toLowerCase() || "sign" },
        name || element("span", { class: "unseen" }, "Shape")));
    this.body.replaceChildren(
      element("caption", {}, `Corners of the ${this.region} spine. Keys 0 to 3 set a grade, x: ${CANNOT}.`),
      element("thead", {}, element("tr", {}, head)),
      ...discs.map((disc) => element("tbody", {}, disc.corners.map((corner, at) =>
        this._row(corner, at === 0 && element("th", { scope: "rowgroup", rowspan: 2, class: "disc" }, disc.level))))),
    );
  }

  _row({ site }, level) {
    const inputs = CHOICES.map((grade) => element("input", {
      type: "radio", name: `grade-${site}`, "aria-label": `${choiceName(grade)}, ${meaning(grade)}`,
      onchange: () => this.act.setGrade(site, grade),
    }));
    const shape = element("td", { class: "sign" });
    const note = element("td", { class: "note" });
    const group = element("div", { role: "radiogroup", "aria-label": `Grade of ${site}`, class: "choices" },
      inputs.map((input, at) => element("label", { title: meaning(CHOICES[at]) }, input,
        element("span", { "aria-hidden": "true" }, choiceName(CHOICES[at])))));
    const row = element("tr", {}, level || null, element("th", { scope: "row" }, site), shape,
      element("td", { class: "grade" }, group), note);
    row.addEventListener("keydown", (event) => {
      const grade = gradeOf(event.key);
      if (grade === undefined || event.ctrlKey || event.metaKey || event.altKey || inputs[0].disabled) return;
      event.preventDefault();
      this.act.setGrade(site, grade);
      inputs[CHOICES.indexOf(grade)].focus();
    });
    for (const name of ["focusin", "pointerenter"]) row.addEventListener(name, () => this.act.point(site));
    for (const name of ["focusout", "pointerleave"]) row.addEventListener(name, () => this.act.point(null));
    this.rows.set(site, { row, inputs, shape, note, shown: null });
    return row;
  }

  _show(corner, isEditable) {
    const parts = this.rows.get(corner.site);
    const chosen = choiceOf(corner);
    parts.inputs.forEach((input, at) => {
      input.checked = CHOICES[at] === chosen;
      input.disabled = !isEditable;
    });
    if (parts.shown !== corner.grade) parts.shape.replaceChildren(badge(corner.grade));
    parts.shown = corner.grade;
    parts.note.textContent = notes(corner).join(", ");
    parts.row.classList.toggle("changed", corner.own || corner.grade !== corner.before);
  }
}

export const legend = () => element("ul", { class: "legend", "aria-label": "Grades" },
  CHOICES.map((grade) => element("li", {}, badge(grade), ` ${MEANINGS[grade]}`)));

function notes(corner) {
  const texts = [];
  if (corner.own || corner.grade !== corner.before) texts.push(`was ${gradeName(corner.before)}`);
  else if (corner.grade_from === "reader") texts.push("by a reader");
  if (choiceOf(corner) === undefined) {
    const value = corner.imputed ?? null;
    texts.push(value === null ? corner.status : `counts as ${value.toPrecision(3)}`);
  }
  if (corner.prior !== undefined) texts.push(`prior ${gradeName(corner.prior)}${corner.trend}`);
  return texts;
}

// Open the list of grades at a mark. It closes with a choice, with Escape, or when the focus leaves it.
export function openChooser(viewer, node, corner, choose) {
  const close = (focus) => {
    if (!box.isConnected) return;
    box.remove();
    if (focus) node.focus({ preventScroll: true });
  };
  const options = CHOICES.map((grade) => element("button", {
    type: "button", "aria-pressed": String(grade === choiceOf(corner)),
    onclick: () => {
      close(true);
      choose(grade);
    },
  }, grade === null ? element("span", { class: "key" }, "x") : badge(grade), meaning(grade)));
  const box = element("div", { class: "chooser", role: "dialog", "aria-label": `Grade of ${corner.site}` },
    element("p", {}, corner.site), options);
  box.addEventListener("keydown", (event) => {
    const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const grade = gradeOf(event.key);
    event.stopPropagation();
    if (event.key === "Tab" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (move) options[(options.indexOf(document.activeElement) + move + options.length) % options.length].focus();
    if (event.key === "Escape") close(true);
    if (grade !== undefined) options[CHOICES.indexOf(grade)].click();
    if (move || event.key === "Escape" || grade !== undefined) event.preventDefault();
  });
  box.addEventListener("focusout", (event) => {
    if (!box.contains(event.relatedTarget)) setTimeout(() => box.contains(document.activeElement) || close(false));
  });
  box.addEventListener("pointerdown", (event) => event.stopPropagation());
  viewer.surface.append(box);
  const [left, top] = node.mark.place;
  const { clientWidth: width, clientHeight: height } = viewer.surface;
  box.style.left = `${Math.max(0, Math.min(left + 20, width - box.offsetWidth))}px`;
  box.style.top = `${Math.max(0, Math.min(top - 20, height - box.offsetHeight))}px`;
  (options[CHOICES.indexOf(corner.grade)] ?? options[0]).focus({ preventScroll: true });
}
