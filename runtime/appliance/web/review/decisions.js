// The ways to finish a study. Each decision is sent once; the draft stays until the service has kept it.

import { alarm, button, calm, say } from "/review/dom.js";
import { REGIONS } from "/review/draft.js";
import { refuseDialog } from "/review/refusing.js";
import * as service from "/review/service.js";

export class Decisions {
  constructor(page) {
    this.page = page;
    this.isSending = false;
    this.accepted = null; // the revision that the reader has accepted: a double click accepts once
  }

  async save() {
    const body = this.page.draft.body(this.page.revision);
    const answer = await this._send(["readable", "points", "grades"].find((kind) => kind in body), body);
    if (answer) this.page.saved(answer.study);
  }

  async accept() {
    const { page } = this;
    const { revision } = page;
    if (!(await this._send("accept", { revision }))) return;
    this.accepted = revision;
    page.panel.comment.value = "";
    page.render();
    page.refresh();
  }

  async refuse() {
    const { layout, report, revision } = this.page;
    const regions = await refuseDialog(layout.root, REGIONS.filter((name) => report.regions[name].status !== "missing"));
    const answer = regions && (await this._send("unreadable", { revision, regions }));
    if (answer) this.page.saved(answer.study);
  }

  // Return the answer; null if there is none, or the study was left meanwhile.
  async _send(kind, body) {
    const { page } = this;
    if (this.isSending) return null;
    const [focused, wasAsking] = [document.activeElement, page.preview.isWorking];
    page.preview.stop();
    this.isSending = true;
    page.render();
    try {
      const answer = await service.post(`${page.path}/${kind}`, { ...body, ...page.panel.signature() });
      if (page.isClosed) return null;
      calm();
      say("Kept.");
      return answer;
    } catch (error) {
      this._fail(error);
      if (wasAsking && !page.isClosed) page.preview.askSoon();
      return null;
    } finally {
      this.isSending = false;
      if (!page.isClosed) page.render();
      if (document.activeElement === document.body) focused.focus();
    }
  }

  _fail(error) {
    const { page } = this;
    const isUnknown = error.status === 0 || (error.status >= 500 && !error.code);
    const outcome = isUnknown ? "it is not known whether it was saved" : "it was not saved";
    if (page.isClosed) {
      const open = button(`Open study ${page.number}`, () => location.assign(`#/studies/${page.number}`));
      alarm(`Your decision on study ${page.number}: ${outcome}.`, error, open);
    } else if (error.code === "review-conflict") page.conflict(error);
    else if (error.status === 400 && error.detail.startsWith("reader:")) page.panel.askName();
    else alarm(`${outcome.charAt(0).toUpperCase()}${outcome.slice(1)}; your changes are still here.`, error);
  }
}
