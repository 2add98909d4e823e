// The prior study of the same patient beside the present one, on demand.

import { alarm, button, element } from "/review/dom.js";
import { changedSince, priorSummary, shownDate } from "/review/history.js";
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
    this.opening = null;
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
      if (this.page.closing.signal.aborted) return;
      this.summary.replaceChildren(element("p", {}, "The prior study was not loaded."));
      alarm("The prior study was not loaded.", error, button("Load it again", () => this._load()));
    }
  }

  _toggle() {
    this.page.layout.grid.dataset.prior = this.isShown ? "yes" : "no";
    this.page.render();
    if (this.isShown) this.opening ??= this._open();
  }

  // Show the radiographs, with the report of the same moment: the prior study may be corrected, too.
  async _open() {
    const options = { signal: this.page.closing.signal };
    try {
      const { views, report_url: path } = await service.get(`/v1/studies/${this.page.study.prior.study}`, options);
      this.report = await service.get(path ?? this.page.study.prior.report_url, options);
      for (const [region, view] of Object.entries(views ?? {})) this._addViewer(region, view);
      this.page.render();
    } catch (error) {
      if (options.signal.aborted) return;
      this.opening = null;
      this.box.checked = false;
      this._toggle();
      alarm("The prior study's radiographs were not loaded.", error);
    }
  }

  _addViewer(region, view) {
    const viewer = new Viewer(`Prior ${region} radiograph`);
    this.shown[region] = viewer;
    viewer.tool = this.page.layout.tool;
    viewer.root.classList.add("of-prior");
    viewer.root.prepend(element("p", { class: "tag" }, `Prior study, ${shownDate(this.page.study.prior.study_date)}`));
    this.page.layout.regions[region].pictures.append(viewer.root);
    viewer.setSize(view.rows, view.columns, view.turn_deg);
    this._loadPixels(viewer, view);
  }

  async _loadPixels(viewer, view) {
    const { signal } = this.page.closing;
    viewer.wait();
    try {
      viewer.setPixels(await service.pixelsOf(view, { signal }));
    } catch (error) {
      if (!signal.aborted) viewer.refuse(error, button("Load it again", () => this._loadPixels(viewer, view)));
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
      viewer.setMarks(discs.filter((disc) => disc.confidence > 0).map((disc) => {
        const points = [disc.centre_px, disc.anterior_px];
        const corners = disc.corners.map((corner) => {
          const now = changed.get(corner.site);
          return { ...corner, before: corner.grade, sign: now ? `now ${now.grade}` : "" };
        });
        return { level: disc.level, isFound: true, before: points, points, placed: [true, true], corners };
      }));
    }
  }
}
