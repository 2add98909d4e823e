// The question which regions cannot be read.

import { button, element } from "/review/dom.js";

// Return the regions that the reader chose, or null. The question ends with `page`, in which it stands.
export function refuseDialog(page, regions) {
  return new Promise((answer) => {
    const boxes = regions.map((region) => element("input", { type: "checkbox", value: region, onchange: update }));
    const close = () => dialog.close("yes");
    const confirm = button("Say that they cannot be read", close, { class: "primary", disabled: true });
    const dialog = element("dialog", { "aria-labelledby": "refuse-title" },
      element("h2", { id: "refuse-title" }, "Cannot be read"),
      element("p", {}, "A region that cannot be read gets no grades. A new revision without them is sent out."),
      element("fieldset", { class: "regions-choice" }, element("legend", {}, "Regions"),
        boxes.map((box) => element("label", {}, box, ` ${box.value}`))),
      element("p", { class: "actions" }, confirm, button("Back", () => dialog.close())));
    function update() {
      confirm.disabled = !boxes.some((box) => box.checked);
    }
    dialog.addEventListener("close", () => {
      dialog.remove();
      answer(dialog.returnValue === "yes" ? boxes.filter((box) => box.checked).map((box) => box.value) : null);
    });
    page.append(dialog);
    dialog.showModal();
  });
}
