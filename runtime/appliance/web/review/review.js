// The page's beginning: the token, the address, and the stream of changes. `#/studies/7` shows a study, `#/` the list.

import { alarm, button, byId, calm, element, told } from "/review/dom.js";
import { ListPage } from "/review/list.js";
import * as service from "/review/service.js";
import { StudyPage } from "/review/study.js";

const main = byId("main");
const searched = {};
let page = null;
let version = {};
let address = "#/";
let listening = null;

const ASK = "You have changes that are not saved. Leave this study and lose them?";

function signIn(error = null) {
  listening?.abort();
  page?.close();
  page = null;
  byId("to-list").hidden = byId("leave").hidden = byId("live").hidden = true;
  const field = element("input", { id: "token", type: "password", autocomplete: "off", required: true });
  const problem = element("p", { id: "token-problem", class: "problem", role: "alert" });
  const form = element("form", { class: "card sign-in", onsubmit: (event) => {
    event.preventDefault();
    service.setToken(field.value.trim());
    start();
  } },
  element("h2", {}, "Sign in"),
  element("p", {}, "This service asks for a token. The person who runs it has one for the role reader. ",
    "It is kept until this tab is closed."),
  element("label", { for: "token" }, "Token"), field, problem, element("button", { class: "primary" }, "Sign in"));
  field.setAttribute("aria-describedby", "token-problem");
  main.replaceChildren(form);
  if (error) problem.textContent = told(error);
  field.focus();
}

async function start() {
  calm();
  const hadToken = Boolean(service.token());
  try {
    version = await service.get("/v1/version");
    await service.get("/v1/studies?cursor=1");
  } catch (error) {
    if (error.status === 401 || error.status === 403) {
      service.setToken(null);
      signIn(hadToken || error.status === 403 ? error : null);
      return;
    }
    main.replaceChildren(element("p", {}, "The page is not ready."));
    alarm("The service was not reached.", error, button("Try again", start));
    return;
  }
  byId("leave").hidden = !service.token();
  show();
  follow();
}

function follow() {
  listening?.abort();
  listening = new AbortController();
  service.listen(changed, live, listening.signal);
}

// Nobody sees a hidden page, and a browser has six connections for all pages of one service: the stream would hold one.
function rest() {
  listening?.abort();
  byId("live").dataset.was = "off";
}

function changed(event) {
  if (page instanceof ListPage) page.changed(event);
  else if (page?.number === event.study) page.refresh();
}

function live(problem) {
  const shown = byId("live");
  shown.hidden = false;
  shown.textContent = problem ? "Not live: changes are not shown by themselves. Trying again." : "Live";
  shown.title = problem ? problem.detail : "Changes are shown by themselves";
  shown.classList.toggle("off", Boolean(problem));
  // What happened while the stream was closed is read once.
  if (!problem && shown.dataset.was === "off") page?.number ? page.refresh() : page?.open();
  shown.dataset.was = problem ? "off" : "on";
}

function show() {
  page?.close();
  calm();
  address = location.hash || "#/";
  const study = /^#\/studies\/(\d{1,15})$/.exec(address);
  byId("to-list").hidden = !study;
  document.title = study ? `Study ${study[1]} – spinescore review` : "spinescore review";
  page = study ? new StudyPage(main, Number(study[1]), version) : new ListPage(main, searched);
  page.open();
}

addEventListener("hashchange", () => {
  if (!page || location.hash === address || (!location.hash.startsWith("#/") && location.hash)) return;
  if (page.isDirty && !confirm(ASK)) {
    history.pushState(null, "", address);
    return;
  }
  show();
});

addEventListener("pagehide", rest);
addEventListener("visibilitychange", () => {
  if (document.hidden) rest();
  else if (page) follow();
});
addEventListener("pageshow", (event) => {
  if (event.persisted && page) follow();
});

addEventListener("beforeunload", (event) => {
  if (page?.isDirty) event.preventDefault();
});

// A fault of the page itself is told, too.
for (const kind of ["error", "unhandledrejection"]) {
  addEventListener(kind, (event) => {
    const error = event.reason ?? event.error;
    if (error?.name === "AbortError") return;
    alarm("The page failed; load it again.", { detail: String(error?.message ?? event.message ?? error) });
  });
}

byId("leave").addEventListener("click", () => {
  if (page?.isDirty && !confirm(ASK)) return;
  service.setToken(null);
  signIn();
});

start();
