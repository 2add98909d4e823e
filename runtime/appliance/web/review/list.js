// The work list: studies, the newest first, with a search by state and date of receiving; more on demand.

import { alarm, button, calm, element } from "/review/dom.js";
import { reviewed, shownDate, shownTime } from "/review/history.js";
import { shownTotal } from "/review/panel.js";
import * as service from "/review/service.js";

const STATES = ["collecting", "due", "scoring", "scored", "delivering", "delivered", "parked", "dismissed"];
const HEADS = ["Study", "Received", "Study date", "State", "Total", "Findings", "Reviewed", "Prior"];
const FIELDS = ["state", "since", "until"];
const CHANGES_AFTER_MS = 250; // a study that is scored changes several times at once
const MOST_ALONE = 10; // more studies that have changed are read as a list

export class ListPage {
  constructor(main, kept) {
    this.main = main;
    this.kept = kept; // what was searched for, the last study of the list, and the one that was opened
    this.closing = new AbortController();
    this.rows = new Map();
    this.changes = new Set();
    this.isDirty = false;
  }

  close() {
    this.closing.abort();
    clearTimeout(this.timer);
  }

  signIn() {}

  async open() {
    const field = (name, label, input) => {
      input.id = `search-${name}`;
      input.addEventListener("change", () => this._search());
      this[name] = input;
      return element("div", { class: "field" }, element("label", { for: input.id }, label), input);
    };
    const states = ["", ...STATES].map((name) => element("option", { value: name }, name || "all"));
    const form = element("form", { class: "search", role: "search", "aria-label": "Studies", onsubmit: (event) => {
      event.preventDefault();
      this._search();
    } },
    field("state", "State", element("select", {}, states)),
    field("since", "Received from", element("input", { type: "date", max: "9998-12-31" })),
    field("until", "Received until", element("input", { type: "date", max: "9998-12-31" })),
    element("button", { type: "submit" }, "Search"),
    button("Show all", () => {
      form.reset();
      this._search();
    }));
    for (const name of FIELDS) this[name].value = this.kept[name] ?? "";
    this.body = element("tbody");
    this.count = element("p", { class: "faint", role: "status" }, "Loading…");
    this.more = button("Show more", () => this._readMore(), { hidden: true });
    const heads = HEADS.map((name) => element("th", { scope: "col" }, name));
    this.main.replaceChildren(
      element("h2", { tabindex: "-1", id: "list-title" }, "Work list"), form, this.count,
      element("table", { class: "worklist", "aria-labelledby": "list-title" },
        element("thead", {}, element("tr", {}, heads)), this.body),
      element("p", { class: "actions" }, this.more));
    await this.refresh();
  }

  async _search() {
    for (const name of FIELDS) this.kept[name] = this[name].value;
    this.count.textContent = "Loading…";
    await this._readTo(Infinity);
  }

  // The next page may also come with a `refresh` that begins meanwhile.
  async _readMore() {
    this.below = this.next;
    this.kept.least = this.next - 1;
    const answer = await this._read(this.next);
    if (!answer) return;
    for (const study of answer.studies) this._put(study);
    this._end(answer.next);
  }

  // Read what is shown again, for instance after the service was away.
  refresh() {
    return this._readTo(this.kept.least ?? Infinity);
  }

  // Read the list from the newest study down to one with the number `least`, and the rest of its page.
  async _readTo(least) {
    const studies = [];
    let next = null;
    do {
      const answer = await this._read(next);
      if (!answer) return;
      studies.push(...answer.studies);
      next = answer.next;
    } while (next !== null && next > least);
    this._fill(studies, next);
  }

  // Return a page of the list; null if it was not had, or something else was asked for meanwhile.
  async _read(cursor) {
    const asked = (this.asked = {});
    try {
      const answer = await service.get(`/v1/studies?${this._query(cursor)}`, { signal: this.closing.signal });
      if (this.asked !== asked) return null;
      calm();
      return answer;
    } catch (error) {
      if (this.closing.signal.aborted || this.asked !== asked) return null;
      this.count.textContent = "The studies are not known.";
      alarm("The work list was not loaded.", error, button("Load it again", () => this._search()));
      return null;
    }
  }

  // The service counts days in UTC; a reader's day begins and ends where the reader is.
  _query(cursor) {
    const query = new URLSearchParams();
    if (this.state.value) query.set("state", this.state.value);
    if (this.since.value) query.set("since", new Date(`${this.since.value}T00:00:00`).toISOString());
    if (this.until.value) query.set("until", new Date(`${this.until.value}T23:59:59`).toISOString());
    if (cursor !== null) query.set("cursor", cursor);
    return query;
  }

  _fill(studies, next) {
    const numbers = new Set(studies.map((study) => study.study));
    for (const [number, row] of this.rows) {
      if (numbers.has(number)) continue;
      row.remove();
      this.rows.delete(number);
    }
    for (const study of studies) this._put(study);
    this._end(next);
  }

  _end(next) {
    this.next = next;
    this.kept.least = Math.min(...this.rows.keys());
    this.more.hidden = next === null;
    this._count();
    const row = this.below ? [...this.body.children].find((one) => one.number < this.below)
      : this.rows.get(this.kept.opened);
    row?.querySelector("a").focus();
    this.below = this.kept.opened = null;
  }

  _count() {
    const [many, rest] = [this.rows.size, this.more.hidden ? "" : "; there are more"];
    const none = FIELDS.some((name) => this[name].value)
      ? "No study fits. Choose other dates or another state." : "There are no studies yet.";
    this.count.textContent = many === 0 ? none : `${many} ${many === 1 ? "study" : "studies"} shown${rest}.`;
  }

  // Put a study into its row, or a new row in its place. The link of a row stays, and with it the focus.
  _put(study) {
    let row = this.rows.get(study.study);
    if (!row) {
      const link = { href: `#/studies/${study.study}`, "aria-label": `Open study ${study.study}` };
      row = element("tr", {}, element("th", { scope: "row" }, element("a", link, String(study.study))));
      this.rows.set(study.study, row);
      row.number = study.study;
      const isLast = !(this.body.lastChild?.number < row.number);
      this.body.insertBefore(row, isLast ? null : [...this.body.children].find((one) => one.number < row.number));
    }
    const cells = cellsOf(study).map((cell, at) => element("td", { "data-head": HEADS[at + 1] }, cell));
    while (row.children.length > 1) row.lastChild.remove();
    row.append(...cells);
    return row;
  }

  // A study has changed at the service.
  changed(event) {
    this.changes.add(event.study);
    this.timer ??= setTimeout(() => this._update(), CHANGES_AFTER_MS);
  }

  async _update() {
    const numbers = [...this.changes];
    this.changes.clear();
    if (numbers.length > MOST_ALONE) await this.refresh();
    else for (const number of numbers) await this._readOne(number);
    this.timer = null;
    if (this.changes.size && !this.closing.signal.aborted) this.changed({ study: [...this.changes][0] });
  }

  async _readOne(number) {
    let study;
    try {
      study = await service.get(`/v1/studies/${number}`, { signal: this.closing.signal });
    } catch (error) {
      const again = button("Load the list again", () => this._search());
      if (!this.closing.signal.aborted) alarm("A change of a study is not shown.", error, again);
      return;
    }
    if (!this.rows.has(number) && !this._fits(study)) return;
    this._put(study);
    this._count();
  }

  // Whether a study belongs among those that are shown.
  _fits({ study, state, received_at: received }) {
    const [asked, time] = [this._query(null), Date.parse(received)];
    return [null, state].includes(asked.get("state"))
      && !(time < Date.parse(asked.get("since"))) && !(time > Date.parse(asked.get("until")) + 999)
      && (this.next === null || study > this.kept.least);
  }
}

function cellsOf(study) {
  const { total, findings = [] } = study;
  const isWhole = !total || total.status === "complete";
  const range = isWhole ? null : element("small", {}, ` ${total.status}, ${total.range.join("\u2060–\u2060")}`);
  const why = study.state === "parked" && study.code ? element("small", { class: "wrap" }, ` ${study.code}`) : null;
  const listed = findings.length ? element("span", { title: findings.join(", ") }, findings.slice(0, 2).join(", "),
    findings.length > 2 ? ` and ${findings.length - 2} more` : null) : total ? "none" : "–";
  const state = [element("span", { class: `state-${study.state}` }, study.state), why];
  const amount = [total ? shownTotal(total) : "–", range];
  return [shownTime(study.received_at), shownDate(study.study_date), state, amount, listed, reviewed(study),
    study.has_prior ? "yes" : "no"];
}
