// One study: it loads the report and the pixels, holds the draft, and sends what the reader decides.

import { alarm, button, calm, element, say } from "/review/dom.js";
import { Draft } from "/review/draft.js";
import { openChooser } from "/review/corners.js";
import { Panel } from "/review/panel.js";
import { Prior } from "/review/prior.js";
import { refuseDialog } from "/review/refusing.js";
import { REGIONS, StudyLayout } from "/review/layout.js";
import * as service from "/review/service.js";
import { Views } from "/review/views.js";

const PREVIEW_AFTER_MS = 250;
const BUSY = { collecting: "waits for more radiographs", due: "waits to be scored", scoring: "is being scored" };

export class StudyPage {
  constructor(main, number, version) {
    this.main = main;
    this.number = number;
    this.version = version;
    this.path = `/v1/studies/${number}`;
    this.closing = new AbortController();
    this.prior = new Prior(this);
    this.views = new Views(this);
    this.isSending = false;
    addEventListener("keydown", (event) => this._key(event), { signal: this.closing.signal });
  }

  get isDirty() {
    return Boolean(this.draft && !this.draft.isEmpty && !this.isSaved);
  }

  close() {
    this.closing.abort();
    this.asking?.abort();
    clearTimeout(this.timer);
  }

  async open() {
    performance.mark("study-opened");
    this.main.replaceChildren(element("p", { class: "waiting", role: "status" }, `Study ${this.number} is loading…`));
    try {
      await this._load();
    } catch (error) {
      if (this.closing.signal.aborted) return;
      this.main.replaceChildren(element("p", {}, `Study ${this.number} could not be shown.`));
      alarm("The study was not loaded.", error, button("Load it again", () => this.open()));
    }
  }

  async _load() {
    const { signal } = this.closing;
    this.study = await service.get(this.path, { signal });
    calm();
    this.views.load(this.study);
    const report = await this._report();
    const act = {
      undo: () => this._change(() => this.draft.undo()), redo: () => this._change(() => this.draft.redo()),
      discard: () => this._change(() => this.draft.discard()),
      drop: (change) => this._change(() => this.draft.drop(change)),
      save: () => this._save(), accept: () => this._accept(), refuse: () => this._refuse(), again: () => this._ask(),
    };
    this.panel = new Panel(act, this.version.reader ?? null);
    this.layout = new StudyLayout(this.study, this.panel, this._acts(), this.prior);
    this.main.replaceChildren(this.layout.root);
    this.prior.reset();
    this._show(report);
    if (report && !this.layout.wasFocused) this.layout.title.focus();
  }

  async _report() {
    const { report_url: path } = this.study;
    return path ? service.get(path, { signal: this.closing.signal }) : null;
  }

  _show(report, draft = null) {
    this.report = report;
    this.shownRevision = this.study.revisions?.find((one) => one.report_url === this.study.report_url)?.revision;
    this.isSaved = false;
    this.preview = null;
    this.failed = null;
    this.draft = report ? draft ?? new Draft(report) : null;
    this.layout.showReport(report);
    this.views.place();
    this.render();
    if (this.draft && !this.draft.isEmpty) this._ask();
  }

  get lock() {
    if (this.isSaved) return "Your correction is kept. Its revision is being scored.";
    if (this.study.state in BUSY) return `The study ${BUSY[this.study.state]}. It can be changed when that is done.`;
    return null;
  }

  discs(region) {
    return this.draft.discs(region, this.preview);
  }

  render() {
    this.layout.showStudy(this.study);
    if (!this.report) return;
    const { draft, preview, lock } = this;
    const changed = this.prior.changed(REGIONS.flatMap((region) => this.discs(region)));
    for (const region of REGIONS) {
      const discs = this.discs(region);
      for (const corner of discs.flatMap((disc) => disc.corners)) {
        const prior = changed.get(corner.site);
        if (prior) Object.assign(corner, { prior: prior.prior, trend: prior.trend });
        const differs = corner.own || corner.grade !== corner.before;
        const isBeside = prior && this.prior.isShown;
        corner.sign = differs ? `was ${corner.before ?? "?"}` : isBeside ? `prior ${prior.prior}${prior.trend}` : "";
      }
      this.layout.showRegion(region, this.report.regions[region], discs, lock === null, preview?.regions[region]);
    }
    const working = Boolean(this.timer || this.asking);
    this.panel.showTotal(this.report, preview, { working, failed: this.failed, isSaved: this.isSaved });
    this.panel.showDraft(draft, preview, lock, this.isSaved);
    this.prior.show(changed);
  }

  _acts() {
    return (region) => ({
      move: (level, part, place, ended) => {
        if (this._refuseChange()) return;
        this._change(() => this.draft.movePoint(region, level, part, this._within(region, place)), ended);
      },
      grade: (site, node) => {
        if (this._refuseChange()) return;
        const corner = this.discs(region).flatMap((disc) => disc.corners).find((one) => one.site === site);
        openChooser(this.layout.viewers[region], node, corner, (grade) => this._setGrade(site, grade));
      },
      setGrade: (site, grade) => this._setGrade(site, grade),
      point: (site) => this.layout.viewers[region]?.marks.show(site),
    });
  }

  _within(region, [x, y]) {
    const { rows, columns } = this.layout.viewers[region].size;
    return [Math.min(Math.max(x, 0), columns - 1), Math.min(Math.max(y, 0), rows - 1)];
  }

  _refuseChange() {
    if (this.lock) say(this.lock);
    return Boolean(this.lock);
  }

  _setGrade(site, grade) {
    if (!this._refuseChange()) this._change(() => this.draft.setGrade(site, grade));
    const change = this.draft.changes(this.preview).find((one) => one.site === site);
    say(`${site}: ${grade === null ? "cannot be read" : `grade ${grade}`}${change ? ", not saved" : ", as before"}`);
  }

  // Change the draft; the new total is asked for when the change has ended.
  _change(change, ended = true) {
    change();
    this.failed = null;
    this.asking?.abort();
    this.asking = null;
    clearTimeout(this.timer);
    this.timer = null;
    if (this.draft.isEmpty) this.preview = null;
    else if (ended) this.timer = setTimeout(() => this._ask(), PREVIEW_AFTER_MS);
    this.render();
  }

  async _ask() {
    this.timer = null;
    this.asking?.abort();
    const asking = new AbortController();
    Object.assign(this, { asking, failed: null });
    this.render();
    try {
      const body = this.draft.body(this.revision);
      const { report } = await service.post(`${this.path}/preview`, body, { signal: asking.signal });
      if (this.asking === asking) this.preview = report;
    } catch (error) {
      if (error.name === "AbortError" || this.asking !== asking) return;
      if (error.status === 409) this._conflict(error);
      this.failed = error;
    }
    if (this.asking !== asking) return;
    this.asking = null;
    this.render();
  }

  get revision() {
    return this.shownRevision ?? this.study.revision;
  }

  // Send one decision; the study that comes back is shown. The draft stays if it fails.
  async _send(kind, body, done) {
    if (this.isSending) return false;
    this.isSending = true;
    try {
      const answer = await service.post(`${this.path}/${kind}`, { ...body, ...this.panel.signature() });
      calm();
      done(answer);
      say("Kept.");
      return true;
    } catch (error) {
      if (error.status === 409) this._conflict(error);
      else if (error.status === 400 && error.detail.startsWith("reader:")) this.panel.askName();
      else alarm("It was not saved; your changes are still here.", error);
      return false;
    } finally {
      this.isSending = false;
    }
  }

  _save() {
    const { points, grades, revision } = this.draft.body(this.revision);
    const hasPoints = Object.keys(points).length > 0;
    const body = hasPoints ? { revision, points, grades } : { revision, grades };
    if (Object.keys(grades).length === 0) delete body.grades;
    return this._send(hasPoints ? "points" : "grades", body, (answer) => this._sent(answer));
  }

  _sent(answer) {
    this.isSaved = true;
    this.panel.comment.value = "";
    if (answer?.study) this.study = { ...this.study, ...answer.study };
    this.render();
    this.refresh();
  }

  async _accept() {
    await this._send("accept", { revision: this.revision }, () => {
      this.panel.comment.value = "";
      this.refresh();
    });
  }

  async _refuse() {
    const regions = await refuseDialog(REGIONS.filter((region) => this.report.regions[region].status !== "missing"));
    if (regions) await this._send("unreadable", { revision: this.revision, regions }, (answer) => this._sent(answer));
  }

  _conflict(error) {
    alarm("The study has changed meanwhile; nothing was saved, and your changes are still here.", error,
      button("Load the newest revision with my changes", () => this._reload(this.draft)),
      button("Load it without them", () => this._reload(null)));
  }

  // Show the newest revision, with the changes of `draft` if it is given.
  async _reload(draft) {
    try {
      this.study = await service.get(this.path, { signal: this.closing.signal });
      const report = await this._report();
      calm();
      this._show(report, draft && report ? draft.onto(report) : null);
      say(`Revision ${this.revision} is shown.`);
    } catch (error) {
      const again = button("Try again", () => this._reload(draft));
      if (error.name !== "AbortError") alarm("The newest revision was not loaded.", error, again);
    }
  }

  // The study has changed at the service.
  async refresh() {
    if (!this.layout) return;
    let study;
    try {
      study = await service.get(this.path, { signal: this.closing.signal });
    } catch (error) {
      const again = button("Ask again", () => this.refresh());
      if (error.name !== "AbortError") alarm("The study's state is not known.", error, again);
      return;
    }
    const before = this.study;
    this.study = study;
    if (study.report_url && study.report_url !== before.report_url) {
      if (!this.isDirty) {
        await this._reload(null);
        return;
      }
      const detail = `revision ${study.revision} of this study is there`;
      this._conflict({ detail, nextStep: "Look at it, then save again." });
    }
    if (this.isSaved && study.state === "parked") this.isSaved = false;
    this.render();
  }

  _key(event) {
    if (!(event.ctrlKey || event.metaKey) || !this.draft || this.lock) return;
    if (event.target.closest("input[id], textarea, dialog")) return;
    const key = event.key.toLowerCase();
    const redo = key === "y" || (key === "z" && event.shiftKey);
    if (!redo && key !== "z") return;
    event.preventDefault();
    this._change(() => (redo ? this.draft.redo() : this.draft.undo()));
  }
}
