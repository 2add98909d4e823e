"use strict";
// The page works without this script: boxes and zoom are CSS, and a zoomed radiograph scrolls. The script adds
// dragging, a double click that zooms in at its place, and a zoom that keeps the middle of the view.
const zooms = [...document.querySelectorAll("input[name=zoom]")];
const views = [...document.querySelectorAll(".viewport")];
const middles = new Map(views.map((view) => [view, [0.5, 0.5]]));

function note(view) {
  middles.set(view, [
    (view.scrollLeft + view.clientWidth / 2) / view.scrollWidth,
    (view.scrollTop + view.clientHeight / 2) / view.scrollHeight,
  ]);
}

function show(view, [x, y]) {
  view.scrollLeft = x * view.scrollWidth - view.clientWidth / 2;
  view.scrollTop = y * view.scrollHeight - view.clientHeight / 2;
}

for (const zoom of zooms) {
  zoom.addEventListener("change", () => {
    const before = new Map(middles);
    for (const view of views) show(view, before.get(view));
  });
}

for (const view of views) {
  let held = null;
  view.addEventListener("scroll", () => note(view), { passive: true });
  view.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.pointerType === "touch" || event.target.closest("a")) return;
    held = [event.clientX + view.scrollLeft, event.clientY + view.scrollTop];
    view.setPointerCapture(event.pointerId);
    view.classList.add("held");
  });
  view.addEventListener("pointermove", (event) => {
    if (!held) return;
    view.scrollLeft = held[0] - event.clientX;
    view.scrollTop = held[1] - event.clientY;
  });
  for (const name of ["pointerup", "pointercancel"]) {
    view.addEventListener(name, () => {
      held = null;
      view.classList.remove("held");
    });
  }
  view.addEventListener("dblclick", (event) => {
    const box = view.getBoundingClientRect();
    const place = [
      (view.scrollLeft + event.clientX - box.left) / view.scrollWidth,
      (view.scrollTop + event.clientY - box.top) / view.scrollHeight,
    ];
    zooms[(zooms.findIndex((zoom) => zoom.checked) + 1) % zooms.length].checked = true;
    show(view, place);
    for (const other of views) if (other !== view) show(other, middles.get(other));
  });
}
