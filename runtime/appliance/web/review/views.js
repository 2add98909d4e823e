// The radiographs of one study: all are asked for at once, and each is shown when it and its place are there.

import { alarm, button } from "/review/dom.js";
import * as service from "/review/service.js";

export class Views {
  constructor(page) {
    this.page = page;
    this.loading = {};
  }

  load(study) {
    for (const [region, view] of Object.entries(study.views ?? {})) this._load(region, view);
  }

  _load(region, view) {
    const options = { signal: this.page.closing.signal };
    this.loading[region] = service.pixelsOf(view, options).catch((error) => ({ ...view, error }));
    return this._place(region);
  }

  // Show what is there in the viewers that have nothing yet.
  place() {
    for (const region of Object.keys(this.loading)) this._place(region);
  }

  async _place(region) {
    const view = await this.loading[region];
    const viewer = this.page.layout?.viewers[region];
    if (!viewer || viewer.picture || this.page.closing.signal.aborted) return;
    if (view.error) {
      const again = button("Load it again", () => this._load(region, this.page.study.views[region]));
      viewer.refuse("The radiograph was not loaded.");
      alarm(`The ${region} radiograph was not loaded.`, view.error, again);
      return;
    }
    viewer.ondrawn = () => this._drawn(viewer);
    viewer.setPixels(view);
  }

  // Set a mark of performance when all radiographs are drawn, with their points.
  _drawn(viewer) {
    const { layout, report } = this.page;
    viewer.ondrawn = null;
    viewer.isDrawn = true;
    if (!report || Object.values(layout.viewers).some((one) => !one.isDrawn)) return;
    performance.mark("study-drawn");
    layout.root.dataset.drawn = "yes";
  }
}
