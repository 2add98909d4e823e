// Beside the radiographs: the total, the changes that are not saved yet, and the ways to finish.

import { button, element, told } from "/review/dom.js";
import { gradeName } from "/review/marks.js";

const STUDY_MAX = 72;
const READER = "spinescore-reader";

export const shownTotal = (total) => (total?.value === null || total === null || total === undefined
  ? "no total" : String(Math.round(total.value * 100) / 100));

const WORDS = {
  complete: () => "All 24 corners are graded.",
  imputed: ({ imputed_sites: sites, range: [low, high] }) =>
    `${sites.length} of 24 corners count as their region's mean; the total lies between ${low} and ${high}.`,
  incomplete: ({ range: [low, high] }) => `Too many corners are missing; the total lies between ${low} and ${high}.`,
};

export class Panel {
  // `act` has undo, redo, discard, drop(change), save, accept, refuse, again.
  constructor(act, readerName) {
    this.act = act;
    this.heading = element("h2", { id: "draft-title" });
    this.total = element("div", { class: "total", role: "status", "aria-label": "Total" });
    this.undo = button("Undo", act.undo, { title: "Ctrl+Z", "aria-keyshortcuts": "Control+Z" });
    this.redo = button("Redo", act.redo, { title: "Ctrl+Y", "aria-keyshortcuts": "Control+Y" });
    this.discard = button("Discard all", act.discard);
    this.list = element("ul", { class: "changes" });
    this.none = element("p", { class: "faint" }, "None. Drag a point, or choose a grade.");
    this.lock = element("p", { class: "lock", role: "status" });
    this.reader = element("input", {
      id: "reader", maxlength: 64, autocomplete: "name", "aria-describedby": "finish-hint", dir: "auto",
      oninput: () => this.reader.setAttribute("aria-invalid", "false"),
    });
    this.setReader(readerName);
    this.comment = element("textarea", { id: "comment", rows: 2, maxlength: 1000, dir: "auto" });
    this.save = button("Save correction", act.save, { class: "primary" });
    this.accept = button("Accept as it is", act.accept);
    this.refuse = button("Cannot be read…", act.refuse);
    this.hint = element("p", { class: "faint", id: "finish-hint", role: "status" });
    const finish = element("h2", { id: "finish-title", tabindex: "-1" }, "Finish");
    this.root = element("aside", { class: "panel", "aria-label": "Result and changes" },
      element("section", { class: "card" }, element("h2", {}, "Total"), this.total,
        button("Finish", () => finish.focus(), { class: "to-finish", "aria-label": "Finish: go to the decision" })),
      element("section", { class: "card draft", "aria-labelledby": "draft-title" },
        this.heading, this.none, this.list,
        element("p", { class: "actions" }, this.undo, this.redo, this.discard)),
      element("section", { class: "card finish", "aria-labelledby": "finish-title" },
        finish, this.lock,
        element("label", { for: "reader" }, "Reader, name or initials"), this.reader,
        element("label", { for: "comment" }, "Comment (may be empty)"), this.comment,
        element("p", { class: "actions" }, this.save, this.accept, this.refuse), this.hint),
    );
  }

  // The name of the token's reader counts; without one the reader writes it.
  setReader(name) {
    if (name || this.reader.readOnly) this.reader.value = name ?? "";
    else this.reader.value ||= sessionStorage.getItem(READER) ?? "";
    this.reader.readOnly = Boolean(name);
  }

  // Return { reader, comment }. There may be no reader: a token may have the name.
  signature() {
    const reader = this.reader.value.trim();
    if (!this.reader.readOnly) sessionStorage.setItem(READER, reader);
    return { reader: reader || null, comment: this.comment.value.trim() || null };
  }

  askName() {
    this.reader.setAttribute("aria-invalid", "true");
    this.reader.focus();
    this.hint.textContent = "Nothing was saved. Write your name or initials: they stand in the result.";
  }

  // `working`: the new total is on its way. `failed`: it could not be computed. `isSaved`: the changes are kept.
  showTotal(report, preview, { working, failed, isSaved }) {
    const [before, after] = [report.total, preview?.total ?? report.total];
    const value = (total, name) => element("span", { class: name }, shownTotal(total));
    const arrow = element("span", { class: "arrow" }, element("span", { class: "unseen" }, "becomes"),
      element("span", { "aria-hidden": "true" }, "→"));
    const changed = preview && shownTotal(before) !== shownTotal(after);
    const parts = [element("p", { class: "value" },
      changed ? [value(before, "before"), arrow] : null,
      value(after, "after"), after.value === null ? null : element("span", { class: "most" }, `of ${STUDY_MAX}`))];
    if (working) parts.push(element("p", { class: "working" }, "Computing the new total…"));
    else if (failed) {
      parts.push(element("p", { class: "problem" }, `The new total is not known. ${told(failed)}`),
        element("p", { class: "actions" }, button("Compute again", this.act.again)));
    } else if (preview) parts.push(element("p", {}, changed
        ? `With your changes, ${isSaved ? "which are saved" : "not saved"}.`
        : "Your changes leave the total as it is."));
    const isOld = working || failed;
    if (!isOld) parts.push(element("p", { class: "faint" }, WORDS[after.status](after)));
    if (after.expected && !isOld) {
      const [low, high] = after.expected.interval;
      const mean = after.expected.mean.toFixed(1);
      parts.push(element("p", { class: "faint" }, `Expected: ${mean}, 95 % interval ${low} to ${high}.`));
    }
    this.total.replaceChildren(...parts);
    this.total.setAttribute("aria-busy", String(Boolean(working)));
  }

  // `lock`: why nothing can be changed now, or null. `isAccepted`: the reader has accepted this revision already.
  showDraft(draft, preview, { lock, isSaved, isAccepted }) {
    this.heading.textContent = isSaved ? "Changes, saved" : "Changes, not saved";
    const lines = draft.changes(preview);
    const hadFocus = this.list.contains(document.activeElement);
    this.list.replaceChildren(...lines.map((change) => this._change(change, lock)));
    this.none.hidden = lines.length > 0;
    this.undo.disabled = Boolean(lock) || !draft.canUndo;
    this.redo.disabled = Boolean(lock) || !draft.canRedo;
    this.discard.disabled = Boolean(lock) || draft.isEmpty;
    const { unplaced } = draft;
    this.save.disabled = Boolean(lock) || draft.isEmpty || unplaced.length > 0;
    this.accept.disabled = Boolean(lock) || !draft.isEmpty || isAccepted;
    this.refuse.disabled = Boolean(lock) || !draft.isEmpty;
    this.save.classList.toggle("primary", !draft.isEmpty);
    this.accept.classList.toggle("primary", draft.isEmpty);
    this.lock.textContent = lock ?? "";
    this.lock.hidden = !lock;
    if (hadFocus) (this.list.querySelector("button") ?? this.undo).focus();
    if (this.reader.getAttribute("aria-invalid") === "true") return; // the hint says that the name is missing
    this.hint.textContent = lock ? "" : unplaced.length ? `To save, place ${unplaced.join(" and ")}, too.`
      : draft.isEmpty
        ? `${isAccepted ? "You have accepted this revision. " : ""}To save a correction, change a point or a grade first.`
        : "To accept, or to say that a region cannot be read, save or discard your changes first.";
  }

  _change(change, lock) {
    const isGrade = change.kind === "grade";
    const text = WORDS_OF[change.kind](change);
    const name = change.site ?? (change.level ? `${change.level} ${change.name}` : text);
    const options = { "aria-label": `Take back: ${name}`, class: "small", disabled: Boolean(lock) };
    const isOwn = !isGrade || change.own;
    return element("li", {},
      element("span", {}, text, isOwn ? null : element("small", {}, " follows from the points")),
      isOwn ? button("Take back", () => this.act.drop(change), options) : null);
  }
}

const WORDS_OF = {
  region: ({ region }) => `${region.charAt(0).toUpperCase()}${region.slice(1)} spine: can be read`,
  point: wordsOfPoint,
  grade: wordsOfGrade,
};

function wordsOfPoint({ level, name, px, mm }) {
  if (px === null) return `${level}, ${name} point: placed`;
  return `${level}, ${name} point: moved ${px.toFixed(1)} px${mm === null ? "" : ` (${mm.toFixed(2)} mm)`}`;
}

function wordsOfGrade({ site, before, after, own }) {
  return `${site}: ${gradeName(before)} → ${own && after === null ? "x, cannot be read" : gradeName(after)}`;
}
