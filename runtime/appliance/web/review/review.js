// The page's beginning: the token, the address, and the stream of changes. `#/studies/7` shows a study, `#/` the list.

import { alarm, button, byId, calm, say } from "/review/dom.js";
import { ListPage } from "/review/list.js";
import * as service from "/review/service.js";
import { signInAgain, signInForm } from "/review/signing.js";
import { StudyPage } from "/review/study.js";

const main = byId("main");
let searched = {};
let page = null;
let version = {};
let address = "#/";
let listening = null;

const ASK = "You have changes that are not saved. Leave this study and lose them?";

function signIn(error = null) {
  listening?.abort();
  page?.close();
  page = null;
  searched = {};
  byId("to-list").hidden = byId("leave").hidden = byId("live").hidden = true;
  const { form, field, tell } = signInForm(start);
  main.replaceChildren(form);
  if (error) tell(error);
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
      service.signOut();
      signIn(hadToken || error.status === 403 ? error : null);
      return;
    }
    main.replaceChildren("The page is not ready.");
    alarm("The service was not reached.", error, button("Try again", start));
    return;
  }
  byId("leave").hidden = !service.token();
  show();
  follow();
}

// Nobody sees a hidden page, and a browser has six connections for all pages of one service: the stream would hold one.
function follow() {
  listening?.abort();
  if (document.hidden) return;
  listening = new AbortController();
  service.listen((event) => page?.changed(event), live, listening.signal);
}

// The page is read again whenever the stream opens: nobody told what had happened before.
function live(problem) {
  const shown = byId("live");
  shown.hidden = false;
  const isRefused = problem?.status === 401 || problem?.status === 403;
  const off = `Not live: changes are not shown by themselves.${isRefused ? "" : " Trying again."}`;
  shown.textContent = problem ? off : "Live";
  shown.title = problem ? problem.detail : "Changes are shown by themselves";
  shown.classList.toggle("off", Boolean(problem));
  if (!problem) page?.refresh();
}

function show() {
  page?.close();
  calm();
  performance.clearMarks();
  address = location.hash || "#/";
  const study = /^#\/studies\/(\d{1,15})$/.exec(address);
  byId("to-list").hidden = !study;
  if (study) searched.opened = Number(study[1]);
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

addEventListener("pagehide", () => listening?.abort());
addEventListener("visibilitychange", () => {
  if (page) follow();
});
addEventListener("pageshow", (event) => {
  if (event.persisted && page) follow();
});

addEventListener("beforeunload", (event) => {
  if (page?.isDirty || page?.isSending) event.preventDefault();
});

// The service no longer knows the token: it is asked for above the page, which stays as it is.
addEventListener("signed-out", () => {
  if (page) signInAgain(main, (newest) => {
    version = newest;
    page.signIn(version);
    byId("leave").hidden = !service.token();
    calm();
    say("Signed in.");
    follow();
  });
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
  service.signOut();
  calm();
  signIn();
});

start();
