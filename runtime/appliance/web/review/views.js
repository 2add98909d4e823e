// The radiographs of one study: all are asked for at once, and each is shown when it and its place are there.

import { button } from "/review/dom.js";
import * as service from "/review/service.js";

export class Views {
  constructor(page) {
    this.page = page;
    this.loading = {};
  }

  // Ask for the radiographs that are not there yet.
  load(study) {
    for (const [region, view] of Object.entries(study.views ?? {})) {
      const { sha256 } = this.loading[region] ?? this.page.layout?.viewers[region] ?? {};
      if (sha256 !== view.sha256) this._load(region, view);
    }
  }

  _load(region, view) {
    const options = { signal: this.page.closing.signal };
    const pixels = service.pixelsOf(view, options).catch((error) => ({ error }));
    this.loading[region] = { sha256: view.sha256, view, pixels };
    return this._place(region);
  }

  // Show what is there in the viewers that have nothing yet.
  place() {
    for (const region of Object.keys(this.loading)) this._place(region);
  }

  async _place(region) {
    const one = this.loading[region];
    const pixels = await one.pixels;
    const viewer = this.page.layout?.viewers[region];
    if (this.loading[region] !== one || viewer?.sha256 !== one.sha256 || this.page.closing.signal.aborted) return;
    delete this.loading[region]; // the viewer has the pixels, perhaps turned
    if (pixels.error) {
      viewer.refuse(pixels.error, button("Load it again", () => {
        viewer.wait();
        this._load(region, one.view);
      }));
      return;
    }
    viewer.ondrawn = () => this._drawn(viewer);
    viewer.setPixels(pixels);
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
