// The form that asks for the token: as a page of its own, and above a page whose token the service no longer knows.

import { element, told } from "/review/dom.js";
import * as service from "/review/service.js";

// `signed` is called when there is a new token. Return the form, its field, and what tells of an error.
export function signInForm(signed) {
  const field = element("input", {
    id: "token", type: "password", autocomplete: "off", required: true, "aria-describedby": "token-problem",
  });
  const problem = element("p", { id: "token-problem", class: "problem", role: "alert" });
  const tell = (error) => {
    problem.textContent = told(error);
  };
  const form = element("form", { class: "card sign-in", onsubmit: (event) => {
    event.preventDefault();
    const token = field.value.trim();
    if (!/^[!-~]+$/.test(token)) {
      tell({ detail: "a token has letters, digits and signs of ASCII, without spaces; copy the whole of it" });
      return;
    }
    service.setToken(token);
    signed();
  } },
  element("h2", {}, "Sign in"),
  element("p", {}, "This service asks for a token. The person who runs it has one for the role reader. ",
    "It is kept until this tab is closed."),
  element("label", { for: "token" }, "Token"), field, problem, element("button", { class: "primary" }, "Sign in"));
  return { form, field, tell };
}

// Ask for the token above the page; `signed` gets the service's version when the token is known to it.
export function signInAgain(main, signed) {
  if (main.querySelector("dialog.signing")) return;
  const { form, field, tell } = signInForm(async () => {
    let version;
    try {
      version = await service.get("/v1/version");
    } catch (error) {
      tell(error);
      return;
    }
    dialog.close();
    signed(version);
  });
  form.querySelector("h2").textContent = "Sign in again";
  form.querySelector("h2").id = "signing-title";
  const dialog = element("dialog", { class: "signing", "aria-labelledby": "signing-title" }, form);
  dialog.addEventListener("close", () => dialog.remove());
  main.append(dialog);
  dialog.showModal();
  field.focus();
}
