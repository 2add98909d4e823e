// Below the pictures: the revisions of a study, its files, and what differs from the prior study.

import { alarm, button, element } from "/review/dom.js";
import { gradeName } from "/review/marks.js";
import { shownTotal } from "/review/panel.js";
import * as service from "/review/service.js";

export const shownTime = (text) => (text ? new Date(text).toLocaleString([], { dateStyle: "medium", timeStyle: "short" }) : "–");

export const shownDate = (text) => (/^\d{8}$/.test(text ?? "") ? `${text.slice(0, 4)}-${text.slice(4, 6)}-${text.slice(6)}` : text || "–");

const NAMES = { html: "HTML report", sr: "DICOM SR", json: "JSON report", csv: "CSV table", png: "Picture", gsps: "Presentation state", sc: "DICOM picture" };

export function revisionsTable(study) {
  const rows = [...(study.revisions ?? [])].sort((a, b) => b.revision - a.revision).map((one) => element("tr", {},
    element("th", { scope: "row" }, String(one.revision)),
    element("td", {}, shownTime(one.made_at)), element("td", {}, one.by ?? "–"), element("td", {}, verdictOf(one)),
    element("td", { class: "number" }, shownTotal(one.total)), element("td", { class: "wrap" }, one.comment ?? "")));
  if (rows.length === 0) return element("p", { class: "faint" }, "No revision is finished yet.");
  const head = ["Revision", "Made", "By", "Verdict", "Total", "Comment"].map((name) => element("th", { scope: "col" }, name));
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of revisions" },
    element("table", { class: "revisions" }, element("thead", {}, element("tr", {}, head)), element("tbody", {}, rows)));
}

function verdictOf({ by, verdict, reader }) {
  if (!verdict) return "–";
  return reader && reader !== by ? `${verdict} by ${reader}` : verdict;
}

// Links to the results of the newest revision. With a token the browser cannot follow them alone: they are fetched and saved.
export function filesList(study) {
  const folder = study.report_url?.replace(/[^/]*$/, "");
  const files = (study.files ?? []).filter((path) => folder && path.startsWith(folder));
  const items = files.map((path) => {
    const file = path.split("/").pop();
    const kind = file.endsWith(".dcm") ? Object.keys(NAMES).find((name) => file.includes(name)) ?? "sr" : file.split(".").pop();
    const text = `${NAMES[kind] ?? "File"} (${file})`;
    if (!service.token()) return element("li", {}, element("a", { href: path, target: "_blank", rel: "noopener" }, text));
    return element("li", {}, element("a", { href: path, download: `study-${study.study}-${file}`, onclick: save }, text));
  });
  return items.length ? element("ul", { class: "files" }, items) : element("p", { class: "faint" }, "There are no files.");
}

async function save(event) {
  const link = event.currentTarget;
  event.preventDefault();
  try {
    const url = URL.createObjectURL(await service.blob(link.getAttribute("href")));
    element("a", { href: url, download: link.download }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
  } catch (error) {
    alarm("The file was not saved.", error, button("Try again", () => link.click()));
  }
}

// Return the corners that differ from the prior study, as { site, prior, grade, trend }, by site.
export function changedSince(discs, prior) {
  const before = new Map();
  for (const { discs: own } of Object.values(prior.regions)) {
    for (const corner of own.flatMap((disc) => disc.corners)) before.set(corner.site, corner.grade);
  }
  const changed = new Map();
  for (const { site, grade } of discs.flatMap((disc) => disc.corners)) {
    const old = before.get(site);
    if (old === undefined || old === null || grade === null || old === grade) continue;
    changed.set(site, { site, prior: old, grade, trend: grade > old ? " ▲" : " ▼" });
  }
  return changed;
}

export function priorSummary(changed, study, priorReport) {
  const lines = [...changed.values()].map(({ site, prior, grade, trend }) => element("li", {},
    `${site}: ${gradeName(prior)} → ${gradeName(grade)}${trend}`, element("span", { class: "unseen" }, trend.includes("▲") ? " higher" : " lower")));
  return [
    element("p", {}, `Study ${study.prior.study} of ${shownDate(study.prior.study_date)}, total ${shownTotal(priorReport.total)}. `,
      lines.length ? `${lines.length} corners differ:` : "No corner that both have graded differs."),
    lines.length ? element("ul", { class: "differences" }, lines) : null,
  ];
}
