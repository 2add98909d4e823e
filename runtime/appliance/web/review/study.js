// One study: it loads the report and the pixels, and holds the draft.

import { alarm, button, calm, element, say } from "/review/dom.js";
import { Draft, REGIONS } from "/review/draft.js";
import { openChooser } from "/review/corners.js";
import { Decisions } from "/review/decisions.js";
import { Panel } from "/review/panel.js";
import { Prior } from "/review/prior.js";
import { Preview } from "/review/preview.js";
import { StudyLayout } from "/review/layout.js";
import * as service from "/review/service.js";
import { Views } from "/review/views.js";

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
    this.preview = new Preview(this);
    this.decisions = new Decisions(this);
    addEventListener("keydown", (event) => this._key(event), { signal: this.closing.signal });
  }

  get isSending() {
    return this.decisions.isSending;
  }

  get isClosed() {
    return this.closing.signal.aborted;
  }

  get hasChanges() {
    return Boolean(this.draft && !this.draft.isEmpty && !this.isSaved);
  }

  // Whether anything would be lost without this page.
  get isDirty() {
    return this.hasChanges || Boolean(this.panel?.comment.value.trim() && !this.isSaved);
  }

  close() {
    this.closing.abort();
    this.preview.stop();
  }

  signIn(version) {
    this.version = version;
    this.panel?.setReader(version.reader ?? null);
  }

  async open() {
    performance.mark("study-opened");
    this.main.replaceChildren(element("p", { class: "waiting", role: "status" }, `Study ${this.number} is loading…`));
    try {
      await this._load();
    } catch (error) {
      if (this.isClosed) return;
      this.main.replaceChildren(element("p", {}, `Study ${this.number} could not be shown.`));
      alarm("The study was not loaded.", error, button("Load it again", () => this.open()));
    }
  }

  async _load() {
    this.isLoading = true;
    this.isOld = false;
    try {
      this.study = await service.get(this.path, { signal: this.closing.signal });
      calm();
      this.views.load(this.study);
      const report = await this._report(this.study);
      const act = {
        undo: () => this._change(() => this.draft.undo()), redo: () => this._change(() => this.draft.redo()),
        discard: () => this._change(() => this.draft.discard()),
        drop: (change) => this._change(() => this.draft.drop(change)),
        save: () => this.decisions.save(), accept: () => this.decisions.accept(),
        refuse: () => this.decisions.refuse(), again: () => this.preview.ask(),
      };
      this.panel = new Panel(act, this.version.reader ?? null);
      this.layout = new StudyLayout(this.panel, this._acts(), this.prior);
      this.main.replaceChildren(this.layout.root);
      this.prior.reset();
      this._show(report);
      if (report) this.layout.title.focus();
    } finally {
      this.isLoading = false;
    }
    if (this.isOld) this.refresh();
  }

  async _report({ report_url: path }) {
    return path ? service.get(path, { signal: this.closing.signal }) : null;
  }

  _show(report, draft = null) {
    this.preview.clear();
    if (this.isSaved) this.panel.comment.value = "";
    this.report = report;
    this.shownUrl = this.study.report_url;
    this.shownRevision = this.study.revisions?.find((one) => one.report_url === this.shownUrl)?.revision;
    this.isSaved = false;
    this.draft = report ? draft ?? new Draft(report) : null;
    this.layout.showReport(this.study, report);
    this.views.place();
    this._showStudy();
    if (this.draft && !this.draft.isEmpty) this.preview.askSoon();
  }

  _showStudy() {
    this.layout.showStudy(this.study);
    this.render();
  }

  get lock() {
    if (this.isSending) return "Your decision is being sent.";
    if (this.isSaved) return "Your correction is kept. Its revision is being scored.";
    if (this.study.state in BUSY) return `The study ${BUSY[this.study.state]}. It can be changed when that is done.`;
    return null;
  }

  discs(region) {
    return this.draft.discs(region, this.preview.report);
  }

  render() {
    if (!this.report) return;
    const { draft, lock, isSaved, preview: { report: preview, failed, isWorking: working } } = this;
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
      const isTaken = draft.isRefused(region); // then a preview of an earlier draft does not count
      this.layout.showRegion(region, this.report.regions[region], discs, lock === null,
        isTaken ? null : preview?.regions[region], isTaken);
    }
    this.panel.showTotal(this.report, preview, { working, failed, isSaved });
    this.panel.showDraft(draft, preview, { lock, isSaved, isAccepted: this.decisions.accepted === this.revision });
    this.prior.show(changed);
  }

  _acts() {
    return (region) => ({
      move: (level, part, place, ended) => {
        if (this._refuseChange(region)) return;
        this._change(() => this.draft.movePoint(region, level, part, this._within(region, place), ended), ended);
      },
      place: (level) => {
        const viewer = this.layout.viewers[region];
        const { placed } = viewer.marks.discs.find((one) => one.level === level);
        viewer.marks.choose(viewer.marks.find(level, Math.max(0, placed.indexOf(false))));
        viewer.surface.scrollIntoView({ block: "nearest" });
      },
      restore: () => {
        const isTaken = this.draft.isRefused(region);
        this._change(() => (isTaken ? this.draft.restore(region) : this.draft.drop({ kind: "region", region })));
        say(`The ${region} spine ${isTaken ? "can be read, not saved" : "cannot be read, as before"}`);
      },
      refuse: (level) => {
        this._change(() => this.draft.refuse(region, level));
        say(`${level}: cannot be read, not saved`);
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

  // Say why nothing can be changed, at all or in a region. Return whether it is so.
  _refuseChange(region = null) {
    const isUnreadable = region && this.draft.isRefused(region);
    const why = this.lock ?? (isUnreadable
      ? "A reader could not read this region. To move its points, say first that it can be read." : null);
    if (why) say(why);
    return Boolean(why);
  }

  _setGrade(site, grade) {
    if (this._refuseChange()) return;
    this._change(() => this.draft.setGrade(site, grade));
    const change = this.draft.changes(this.preview.report).find((one) => one.site === site);
    say(`${site}: ${grade === null ? "cannot be read" : `grade ${grade}`}${change ? ", not saved" : ", as before"}`);
  }

  // Change the draft; the new total is asked for when the change has ended.
  _change(change, ended = true) {
    change();
    this.preview.stop();
    if (Object.keys(this.draft.body()).length === 1) this.preview.clear(); // it has the revision alone
    else if (ended) this.preview.askSoon();
    this.render();
  }

  get revision() {
    return this.shownRevision ?? this.study.revision;
  }

  // The changes are kept by the service.
  saved(study) {
    this.isSaved = true;
    this.study = { ...this.study, ...study };
    this._showStudy();
    this.refresh();
  }

  conflict(error) {
    alarm("The study has changed meanwhile; nothing was saved, and your changes are still here.", error,
      button("Load the newest revision with my changes", () => this._reload(this.draft)),
      button("Load it without them", () => this._reload(null)));
  }

  // Show the newest revision, with the changes of `draft` if it is given. Unless the reader has chosen that, changes that
  // were made while it loads are not lost.
  async _reload(draft, isChosen = true) {
    try {
      const study = await service.get(this.path, { signal: this.closing.signal });
      const report = await this._report(study);
      this.study = study;
      if (!isChosen && this.hasChanges) {
        this._tellNewest();
        return;
      }
      calm();
      const { fresh, left } = draft && report ? draft.onto(report) : { fresh: null, left: [] };
      this.views.load(study);
      this._show(report, fresh);
      say(`Revision ${this.revision} is shown.`);
      if (left.length) alarm("Some of your changes do not fit the newest revision, and were left out.",
        { detail: left.join(", ") });
    } catch (error) {
      const again = button("Try again", () => this._reload(draft));
      if (!this.isClosed) alarm("The newest revision was not loaded.", error, again);
    }
  }

  _tellNewest() {
    const detail = `revision ${this.study.revision} of this study is there`;
    this.conflict({ detail, nextStep: "Look at it, then save again." });
    this._showStudy();
  }

  changed(event) {
    if (event.study === this.number) this.refresh();
  }

  // Ask for the study again. Of several questions the last one counts: its answer is the newest.
  async refresh() {
    this.isOld = true;
    if (this.isLoading) return;
    if (!this.layout) {
      this.open();
      return;
    }
    this.refreshing?.abort();
    const refreshing = (this.refreshing = new AbortController());
    let study;
    try {
      study = await service.get(this.path, { signal: AbortSignal.any([refreshing.signal, this.closing.signal]) });
    } catch (error) {
      if (refreshing.signal.aborted || this.isClosed) return;
      alarm("The study's state is not known.", error, button("Ask again", () => this.refresh()));
      return;
    }
    const before = this.study;
    this.study = study;
    if (study.report_url && study.report_url !== this.shownUrl) {
      if (!this.hasChanges) {
        await this._reload(null, false);
        return;
      }
      if (study.report_url !== before.report_url) this._tellNewest();
    }
    if (this.isSaved && study.state === "parked") this.isSaved = false;
    this._showStudy();
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
