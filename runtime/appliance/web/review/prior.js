// The prior study of the same patient beside the present one, on demand.

import { alarm, button, element } from "/review/dom.js";
import { changedSince, priorSummary } from "/review/history.js";
import { Viewer } from "/review/viewer.js";
import * as service from "/review/service.js";

export class Prior {
  constructor(page) {
    this.page = page;
    this.box = element("input", { type: "checkbox", onchange: () => this._toggle() });
    this.control = element("label", { class: "toggle" }, this.box, "Prior study");
    this.summary = element("div");
    this.section = element("section", { class: "card prior", "aria-labelledby": "prior-title" },
      element("h2", { id: "prior-title" }, "Since the prior study"), this.summary);
    this.reset();
  }

  reset() {
    this.report = null;
    this.shown = {};
    this.box.checked = false;
    const has = Boolean(this.page.study?.prior);
    this.control.hidden = this.section.hidden = !has;
    if (has) this._load();
  }

  get isShown() {
    return this.box.checked;
  }

  viewers() {
    return Object.values(this.shown);
  }

  async _load() {
    const { prior } = this.page.study;
    try {
      this.report = await service.get(prior.report_url, { signal: this.page.closing.signal });
      this.page.render();
    } catch (error) {
      if (error.name === "AbortError") return;
      this.summary.replaceChildren(element("p", {}, "The prior study was not loaded."));
      alarm("The prior study was not loaded.", error, button("Load it again", () => this._load()));
    }
  }

  async _toggle() {
    const { grid } = this.page.layout;
    grid.dataset.prior = this.isShown ? "yes" : "no";
    this.page.render();
    if (!this.isShown || this.viewers().length || !this.report) return;
    try {
      const path = `/v1/studies/${this.page.study.prior.study}`;
      const { views } = await service.get(path, { signal: this.page.closing.signal });
      for (const [region, view] of Object.entries(views ?? {})) this._addViewer(region, view);
      this.page.render();
    } catch (error) {
      if (error.name === "AbortError") return;
      this.box.checked = false;
      grid.dataset.prior = "no";
      alarm("The prior study's radiographs were not loaded.", error);
    }
  }

  async _addViewer(region, view) {
    const viewer = new Viewer(`Prior ${region} radiograph`);
    this.shown[region] = viewer;
    viewer.tool = this.page.layout.tool;
    viewer.root.classList.add("of-prior");
    viewer.root.prepend(element("p", { class: "tag" }, "Prior study"));
    this.page.layout.regions[region].pictures.append(viewer.root);
    viewer.setSize(view.rows, view.columns, view.turn_deg);
    try {
      viewer.setPixels(await service.pixelsOf(view, { signal: this.page.closing.signal }));
    } catch (error) {
      if (error.name === "AbortError") return;
      viewer.refuse("The radiograph was not loaded.");
      alarm(`The prior ${region} radiograph was not loaded.`, error);
    }
  }

  // The corners of `discs` that differ from the prior study, by site; none until it is loaded.
  changed(discs) {
    return this.report ? changedSince(discs, this.report) : new Map();
  }

  show(changed) {
    if (!this.report) return;
    this.summary.replaceChildren(...priorSummary(changed, this.page.study, this.report).filter(Boolean));
    for (const [region, viewer] of Object.entries(this.shown)) {
      const { discs } = this.report.regions[region];
      viewer.setMarks(discs.map((disc) => {
        const points = [disc.centre_px, disc.anterior_px];
        const corners = disc.corners.map((corner) => {
          const now = changed.get(corner.site);
          return { ...corner, before: corner.grade, sign: now ? `now ${now.grade}` : "" };
        });
        return { level: disc.level, points, before: points, corners, confidence: disc.confidence };
      }));
    }
  }
}
