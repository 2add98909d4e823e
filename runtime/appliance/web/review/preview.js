// The report that a draft would give. The service is asked for it soon after a change, one question at a time.

import * as service from "/review/service.js";

const AFTER_MS = 250;

export class Preview {
  constructor(page) {
    this.page = page;
    this.clear();
  }

  // Whether the report of the present draft is on its way.
  get isWorking() {
    return Boolean(this.timer || this.asking);
  }

  clear() {
    this.stop();
    this.report = null;
  }

  stop() {
    this.failed = null; // why there is no report of the present draft
    this.asking?.abort();
    this.asking = null;
    clearTimeout(this.timer);
    this.timer = null;
  }

  askSoon() {
    this.timer = setTimeout(() => this.ask(), AFTER_MS);
  }

  async ask() {
    this.stop();
    const { page } = this;
    const asking = (this.asking = new AbortController());
    page.render();
    try {
      const body = page.draft.body(page.revision);
      const { report } = await service.post(`${page.path}/preview`, body, { signal: asking.signal });
      if (this.asking === asking) this.report = report;
    } catch (error) {
      if (this.asking !== asking) return;
      if (error.code === "review-conflict") page.conflict(error);
      this.failed = error;
    }
    if (this.asking !== asking) return;
    this.asking = null;
    page.render();
  }
}
