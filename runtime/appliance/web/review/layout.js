// The elements of the page of one study, and how a report fills them.

import { byId, button, element, sentence } from "/review/dom.js";
import { CornerTable, legend } from "/review/corners.js";
import { REGIONS, isRefused } from "/review/draft.js";
import { filesList, reviewed, revisionsTable, shownDate, shownTime } from "/review/history.js";
import { LostDiscs } from "/review/lost.js";
import { Viewer } from "/review/viewer.js";

const REGION_MAX = 36;

const TOOLS = {
  points: ["points", "Drag points, choose grades; a drag elsewhere moves the picture"],
  picture: ["picture", "A drag moves the picture"],
  window: ["window", "A drag changes contrast (left and right) and brightness (up and down)"],
};

const SHOWN = { both: ["both"], cervical: ["cervical"], lumbar: ["lumbar"] };

const title = (text) => text.charAt(0).toUpperCase() + text.slice(1);

function choice(name, label, options, first, onchange) {
  return element("fieldset", { class: "choice" }, element("legend", {}, label),
    Object.entries(options).map(([value, [text, hint]]) => element("label", { title: hint },
      element("input", { type: "radio", name, value, checked: value === first, onchange: () => onchange(value) }),
      text)));
}

export class StudyLayout {
  constructor(panel, acts, prior) {
    this.acts = acts;
    this.viewers = {};
    this.tables = {};
    this.tool = "points";
    this.title = element("h2", { tabindex: "-1", id: "study-title" });
    this.facts = element("dl", { class: "facts" });
    this.state = element("p", { class: "state", role: "status" });
    this.regions = Object.fromEntries(REGIONS.map((name) => [name, this._region(name)]));
    this.grid = element("div", { class: "regions" }, Object.values(this.regions).map((one) => one.root));
    this.prior = prior;
    this.tools = element("div", { class: "tools", role: "group", "aria-label": "Tools of the pictures" },
      choice("tool", "A drag moves", TOOLS, "points", (tool) => this.setTool(tool)),
      choice("show", "Show", SHOWN, "both", (show) => this.setShown(show)),
      prior.control);
    this.legend = legend();
    this.revisions = element("div");
    this.files = element("div");
    this.refusal = element("div");
    this.root = element("div", { class: "study" },
      element("div", { class: "head" }, this.title, this.facts, this.state),
      element("div", { class: "pictures" }, this.tools, this.legend, this.refusal, this.grid),
      panel.root,
      element("div", { class: "more" },
        element("section", { class: "card all", "aria-labelledby": "revisions-title" },
          element("h2", { id: "revisions-title" }, "Revisions"), this.revisions),
        prior.section,
        element("section", { class: "card", "aria-labelledby": "files-title" },
          element("h2", { id: "files-title" }, "Files of this revision"), this.files), help()));
    this.panel = panel;
  }

  _region(name) {
    const amount = element("span", { class: "amount" });
    const message = element("div");
    const restore = button("", () => this.acts(name).restore(), { class: "restore", hidden: true });
    const lost = new LostDiscs(this.acts(name));
    const pictures = element("div", { class: "side-by-side" });
    const rest = element("div");
    const root = element("article", { class: "region", "data-region": name, "aria-labelledby": `${name}-title` },
      element("h2", { id: `${name}-title` }, title(name), amount), message, restore,
      lost.root, pictures, rest);
    return { root, amount, message, restore, lost, pictures, rest };
  }

  setTool(tool) {
    this.tool = tool;
    this.grid.dataset.tool = tool;
    for (const viewer of [...Object.values(this.viewers), ...this.prior.viewers()]) viewer.tool = tool;
  }

  setShown(show) {
    this.grid.dataset.show = show;
  }

  // A region has a viewer if the service has its radiograph. A viewer stays over revisions with the same radiograph.
  showReport(study, report) {
    for (const part of [this.panel.root, this.tools, this.legend, this.grid]) part.hidden = !report;
    byId("use").textContent = report
      ? `${report.bundle.intended_use} A reader has to check the grades.`
      : "Grades are computed by a program. A reader has to check them with the original radiographs.";
    for (const name of REGIONS) {
      const [view, viewer] = [study.views?.[name], this.viewers[name]];
      if (viewer && viewer.sha256 === view?.sha256) continue;
      viewer?.root.remove();
      this.regions[name].absent?.remove();
      if (view) this._addViewer(name, view);
      else if (report) this._showAbsent(name, report.regions[name]);
    }
  }

  _addViewer(name, view) {
    const viewer = new Viewer(`${title(name)} radiograph`, this.acts(name));
    Object.assign(viewer, { tool: this.tool, sha256: view.sha256 });
    this.viewers[name] = viewer;
    this.regions[name].pictures.prepend(viewer.root);
    viewer.setSize(view.rows, view.columns, view.turn_deg);
  }

  _showAbsent(name, region) {
    delete this.viewers[name];
    this.regions[name].absent = element("p", { class: "absent" }, region.status === "missing"
      ? `The study holds no ${name} radiograph.` : "The radiograph is not there any more.");
    this.regions[name].pictures.prepend(this.regions[name].absent);
  }

  // `isTaken`: a reader could not read the region, and the draft does not say otherwise.
  showRegion(name, region, discs, isEditable, preview, isTaken) {
    const { amount, message, restore, lost, rest } = this.regions[name];
    amount.textContent = heading(region, preview);
    message.replaceChildren(...refusalOf(region, preview, isTaken));
    restore.hidden = !isRefused(region);
    restore.disabled = !isEditable;
    restore.textContent = isTaken ? "Can be read" : "Take back";
    restore.setAttribute("aria-label", isTaken ? `Can be read: ${name} spine` : `Take back: ${name} spine can be read`);
    const viewer = this.viewers[name];
    lost.update(viewer ? discs.filter((disc) => !disc.isFound) : [], isEditable);
    const isScored = region.status === "scored";
    if (viewer) viewer.setMarks(discs, !isScored && preview?.status !== "scored");
    const scored = isScored ? discs : [];
    if (scored.length && !this.tables[name]) {
      this.tables[name] = new CornerTable(name, this.acts(name));
      rest.append(this.tables[name].root);
    }
    if (this.tables[name]) this.tables[name].root.hidden = scored.length === 0;
    if (scored.length) this.tables[name].update(scored, isEditable);
  }

  showStudy(study) {
    this.title.textContent = `Study ${study.study}`;
    const facts = { "Study date": shownDate(study.study_date), Received: shownTime(study.received_at),
      Revision: String(study.revision), Reviewed: reviewed(study) };
    this.facts.replaceChildren(...Object.entries(facts).flatMap(([name, text]) =>
      [element("dt", {}, name), element("dd", {}, text)]));
    const why = study.message ? ` ${study.message}${study.code ? ` (${study.code})` : ""}` : "";
    const state = `State: ${study.state}.${why}`;
    if (this.state.textContent !== state) this.state.textContent = state; // it is spoken when it changes
    const text = study.state === "parked"
      ? "This study has no result. Its state says why; the person who runs the service can have it scored again."
      : "There is no result of this study yet. The page shows it when it is there.";
    this.refusal.replaceChildren(...(study.report_url ? [] : [element("p", { class: "absent" }, text)]));
    this.revisions.replaceChildren(revisionsTable(study));
    this.files.replaceChildren(filesList(study));
  }
}

function heading(region, preview) {
  const shown = preview ?? region;
  if (shown.status !== "scored") return shown.status;
  const total = shown.total === null ? "no total" : `${Math.round(shown.total * 100) / 100} of ${REGION_MAX}`;
  const rest = shown.missing ? `, range ${shown.range.join("–")}, ${shown.missing} of 12 missing` : "";
  return total + rest;
}

function refusalOf(region, preview, isTaken) {
  const shown = preview ?? region;
  if (isRefused(region) && !isTaken && (shown.status === "scored" || isRefused(shown))) {
    return [element("p", { class: "refusal" },
      "You say that this region can be read. It is scored again, with its earlier points and grades.")];
  }
  if (shown.status !== "rejected" || !shown.reject) return [];
  const points = !region.radiograph ? ""
    : ` The points shown are not to be trusted.${isTaken ? "" : " Put them right, and the region is scored."}`;
  return [element("p", { class: "refusal" }, element("strong", {}, `Rejected (${shown.reject.code}). `),
    sentence(shown.reject.message), points)];
}

const KEYS = [
  ["n, p", "next and previous mark of the picture that has the focus"],
  ["Arrow keys", "move the chosen point 1 pixel, with Shift 10; without a point the picture, or the window"],
  ["0, 1, 2, 3, x", "set the grade of the chosen corner; x: cannot be read"],
  ["Enter", "open the list of grades of the chosen corner; say that the guess of a point is right"],
  ["+, −", "zoom"],
  ["0", "show all, with the first window, if no corner is chosen"],
  ["Escape", "from a mark back to the picture"],
  ["Ctrl+Z, Ctrl+Y", "undo, redo"],
];

function help() {
  return element("details", { class: "card" }, element("summary", {}, "Keys, mouse and touch"),
    element("dl", { class: "keys" }, KEYS.flatMap(([key, text]) => [element("dt", {}, key), element("dd", {}, text)])),
    element("p", {}, "The wheel, or two fingers, zoom. The right mouse button always changes the window. ",
      "A drag may begin near a point: the point moves as far as the pointer does."));
}
