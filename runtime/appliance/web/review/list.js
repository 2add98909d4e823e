// The work list: studies, the newest first, with a search by state and date of receiving; more on demand.

import { alarm, button, calm, element } from "/review/dom.js";
import { reviewed } from "/review/layout.js";
import { shownDate, shownTime } from "/review/history.js";
import { shownTotal } from "/review/panel.js";
import * as service from "/review/service.js";

const STATES = ["collecting", "due", "scoring", "scored", "delivering", "delivered", "parked", "dismissed"];
const HEADS = ["Study", "Received", "Study date", "State", "Total", "Findings", "Reviewed", "Prior"];

export class ListPage {
  constructor(main, kept) {
    this.main = main;
    this.kept = kept; // what was searched for, over visits of this page
    this.closing = new AbortController();
    this.rows = new Map();
    this.isDirty = false;
  }

  close() {
    this.closing.abort();
  }

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
    field("since", "Received from", element("input", { type: "date" })),
    field("until", "Received until", element("input", { type: "date" })),
    element("button", { type: "submit" }, "Search"),
    button("Show all", () => {
      form.reset();
      this._search();
    }));
    for (const name of ["state", "since", "until"]) this[name].value = this.kept[name] ?? "";
    this.body = element("tbody");
    this.count = element("p", { class: "faint", role: "status" });
    this.more = button("Show more", () => this._read(this.next), { hidden: true });
    const heads = HEADS.map((name) => element("th", { scope: "col" }, name));
    this.main.replaceChildren(
      element("h2", { tabindex: "-1", id: "list-title" }, "Work list"), form, this.count,
      element("table", { class: "worklist", "aria-labelledby": "list-title" },
        element("thead", {}, element("tr", {}, heads)), this.body),
      element("p", { class: "actions" }, this.more));
    await this._read(null);
  }

  async _search() {
    for (const name of ["state", "since", "until"]) this.kept[name] = this[name].value;
    await this._read(null);
  }

  async _read(cursor) {
    const query = new URLSearchParams();
    for (const name of ["state", "since", "until"]) if (this[name].value) query.set(name, this[name].value);
    if (cursor !== null) query.set("cursor", cursor);
    const asked = (this.asked = `${query}`);
    this.count.textContent = "Loading…";
    let answer;
    try {
      answer = await service.get(`/v1/studies?${query}`, { signal: this.closing.signal });
    } catch (error) {
      if (error.name === "AbortError" || this.asked !== asked) return;
      this.count.textContent = "The studies are not known.";
      alarm("The work list was not loaded.", error, button("Load it again", () => this._read(cursor)));
      return;
    }
    if (this.asked !== asked) return;
    calm();
    if (cursor === null) {
      this.rows.clear();
      this.body.replaceChildren();
    }
    const first = answer.studies.map((study) => this._put(study, false))[0];
    this.next = answer.next;
    this.more.hidden = answer.next === null;
    this._count();
    if (cursor !== null) first?.querySelector("a").focus();
  }

  _count() {
    const [many, rest] = [this.rows.size, this.more.hidden ? "" : "; there are more"];
    this.count.textContent = many === 0 ? "No study fits. Choose other dates or another state."
      : `${many} ${many === 1 ? "study" : "studies"} shown${rest}.`;
  }

  // Put a study into its row; a new one is last, or first if it is `newest`. The link stays, and with it the focus.
  _put(study, newest) {
    let row = this.rows.get(study.study);
    if (!row) {
      const link = { href: `#/studies/${study.study}`, "aria-label": `Open study ${study.study}` };
      row = element("tr", {}, element("th", { scope: "row" }, element("a", link, String(study.study))));
      this.rows.set(study.study, row);
      if (newest) this.body.prepend(row);
      else this.body.append(row);
    }
    const cells = cellsOf(study).map((cell, at) => element("td", { "data-head": HEADS[at + 1] }, cell));
    while (row.children.length > 1) row.lastChild.remove();
    row.append(...cells);
    return row;
  }

  // A study has changed at the service.
  async changed(event) {
    let study;
    try {
      study = await service.get(`/v1/studies/${event.study}`, { signal: this.closing.signal });
    } catch (error) {
      const again = button("Load the list again", () => this._read(null));
      if (error.name !== "AbortError") alarm("A change of a study is not shown.", error, again);
      return;
    }
    const fits = !this.until.value && (!this.state.value || this.state.value === study.state);
    const isNewest = study.study > Math.max(0, ...this.rows.keys());
    if (!this.rows.has(study.study) && !(fits && isNewest)) return;
    this._put(study, true);
    this._count();
  }
}

function cellsOf(study) {
  const { total, findings = [] } = study;
  const isWhole = !total || total.status === "complete";
  const range = isWhole ? null : element("small", {}, ` ${total.status}, ${total.range.join("–")}`);
  const why = study.state === "parked" && study.code ? element("small", { class: "wrap" }, ` ${study.code}`) : null;
  const listed = findings.length ? element("span", { title: findings.join(", ") }, findings.slice(0, 2).join(", "),
    findings.length > 2 ? ` and ${findings.length - 2} more` : null) : "none";
  const state = [element("span", { class: `state-${study.state}` }, study.state), why];
  const amount = [total ? shownTotal(total) : "–", range];
  return [shownTime(study.received_at), shownDate(study.study_date), state, amount, listed, reviewed(study),
    study.has_prior ? "yes" : "no"];
}
