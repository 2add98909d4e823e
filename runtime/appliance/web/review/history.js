// Below the pictures: the revisions of a study, its files, and what differs from the prior study.

import { alarm, button, element } from "/review/dom.js";
import { gradeName } from "/review/marks.js";
import { shownTotal } from "/review/panel.js";
import * as service from "/review/service.js";

const NAMES = {
  html: "HTML report", sr: "DICOM SR", json: "JSON report", csv: "CSV table", png: "Picture",
  gsps: "Presentation state", sc: "DICOM picture",
};

const REVIEWED = { accepted: "accepted", corrected: "corrected", unreadable: "cannot be read", readable: "can be read again" };

export const reviewed = ({ reviewed: verdict }) => (verdict ? REVIEWED[verdict] ?? verdict : "not yet");

const unbroken = (text) => text.replaceAll(" ", "\u00a0");

// Return a time in the reader's own zone and words. A line may break between its day and its hour alone.
export function shownTime(text) {
  if (!text) return "–";
  const time = new Date(text);
  const hour = time.toLocaleTimeString([], { timeStyle: "short" });
  return `${unbroken(time.toLocaleDateString([], { dateStyle: "medium" }))} ${unbroken(hour)}`;
}

export function shownDate(text) {
  const parts = /^(\d{4})(\d\d)(\d\d)$/.exec(text ?? "");
  if (!parts) return text || "–";
  return unbroken(new Date(parts[1], parts[2] - 1, parts[3]).toLocaleDateString([], { dateStyle: "medium" }));
}

export function revisionsTable(study) {
  const rows = [...(study.revisions ?? [])].sort((a, b) => b.revision - a.revision).map((one) => element("tr", {},
    element("th", { scope: "row" }, String(one.revision)),
    element("td", {}, shownTime(one.made_at)), element("td", { class: "wrap", dir: "auto" }, one.by ?? "–"),
    element("td", { class: "wrap", dir: "auto" }, verdictOf(one)), element("td", {}, shownTotal(one.total)),
    element("td", { class: "wrap", dir: "auto" }, one.comment ?? "")));
  if (rows.length === 0) return element("p", { class: "faint" }, "No revision is finished yet.");
  const names = ["Revision", "Made", "By", "Verdict", "Total", "Comment"];
  const head = names.map((name) => element("th", { scope: "col" }, name));
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of revisions" },
    element("table", { class: "revisions" },
      element("thead", {}, element("tr", {}, head)), element("tbody", {}, rows)));
}

// Return what began a revision, if it was a word on a region, and the last verdict on it, with a reader who is another one.
function verdictOf({ by, verdict, reader, ...said }) {
  const words = ["unreadable", "readable"].flatMap((word) =>
    (said[word] ?? []).map((region) => `${region} ${REVIEWED[word]}`));
  if (verdict && !said[verdict]?.length) {
    words.push(reviewed({ reviewed: verdict }) + (reader && reader !== by ? `, says ${reader}` : ""));
  }
  return words.join("; ") || "–";
}

// Links to the results of the newest revision. With a token the browser cannot follow them alone: they are fetched, and
// saved as files.
export function filesList(study) {
  const folder = study.report_url?.replace(/[^/]*$/, "");
  const files = (study.files ?? []).filter((path) => folder && path.startsWith(folder));
  const items = files.map((path) => {
    const file = path.split("/").pop();
    const text = `${NAMES[kindOf(file)] ?? "File"} (${file})`;
    const how = service.token()
      ? { download: `study-${study.study}-${file}`, onclick: save } : { target: "_blank", rel: "noopener" };
    return element("li", {}, element("a", { href: path, ...how }, text));
  });
  if (items.length === 0) return element("p", { class: "faint" }, "There are no files.");
  return element("ul", { class: "files" }, items);
}

function kindOf(file) {
  const ending = file.split(".").pop();
  return ending === "dcm" ? ["gsps", "sc"].find((name) => file.startsWith(name)) ?? "sr" : ending;
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
    `${site}: ${gradeName(prior)} → ${gradeName(grade)}${trend}`,
    element("span", { class: "unseen" }, grade > prior ? " higher" : " lower")));
  const total = shownTotal(priorReport.total);
  return [
    element("p", {}, `Study ${study.prior.study} of ${shownDate(study.prior.study_date)}, total ${total}. `,
      lines.length ? `${lines.length} corners differ:` : "No corner that both have graded differs."),
    lines.length ? element("ul", { class: "differences" }, lines) : null,
  ];
}
